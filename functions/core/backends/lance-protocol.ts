// What the LanceDB function is asked and what it answers: JSON small enough for one call of a Lambda.
import type { Metric } from '../vectors/vector.ts';

/** A table in the folder of a namespace inside the index bucket. */
interface Place {
  readonly folder: string;
  readonly table: string;
}

/** Vectors travel as base64 of little-endian float32, row after row. */
export type LanceRequest =
  | (Place & { readonly op: 'ensure'; readonly dims: number; readonly metric: Metric })
  | (Place & {
      readonly op: 'put';
      readonly dims: number;
      readonly ids: readonly string[];
      readonly seqs: readonly number[];
      readonly vectors: string;
    })
  | (Place & { readonly op: 'remove'; readonly ids: readonly string[] })
  | (Place & { readonly op: 'query'; readonly metric: Metric; readonly vector: string; readonly k: number })
  | (Place & { readonly op: 'count' })
  | (Place & { readonly op: 'list'; readonly cursor?: string })
  | (Place & { readonly op: 'settle'; readonly metric: Metric })
  | (Place & { readonly op: 'drop' })
  /** Every table of the folder whose name begins so. */
  | { readonly op: 'drop_all'; readonly folder: string; readonly prefix: string };

/** By operation, the answer to a call that went well. */
export interface LanceReply {
  readonly ensure: null;
  readonly put: null;
  readonly remove: null;
  readonly query: { readonly ids: readonly string[] };
  readonly count: { readonly count: number };
  readonly list: {
    readonly ids: readonly string[];
    readonly seqs: readonly number[];
    readonly next?: string;
  };
  readonly settle: null;
  readonly drop: null;
  readonly drop_all: null;
}

/** Faults travel as data, so that they keep their kind. */
export type LanceAnswer<Op extends LanceRequest['op'] = LanceRequest['op']> =
  | { readonly ok: true; readonly reply: LanceReply[Op] }
  | { readonly ok: false; readonly code: string; readonly message: string };
