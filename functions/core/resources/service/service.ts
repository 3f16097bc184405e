// What the service says about itself.
import { isoTime } from '../../clock.ts';
import type { Ctx } from '../../context.ts';
import type { Health } from './contract.ts';

/** The version in package.json; a test compares them. */
export const granaryVersion = '0.1.0';

/** Says that the function runs; it asks nothing of the table, so that a probe costs nothing and never locks anybody out. */
export function health(ctx: Ctx): Health {
  return {
    status: 'ok',
    version: granaryVersion,
    stage: ctx.ports.settings.stage,
    time: isoTime(ctx.ports.clock.now()),
  };
}

export interface ApiDocument {
  readonly openapi: string;
  readonly info: { readonly title: string; readonly version: string };
  readonly [member: string]: unknown;
}

/** The published document, as `npm run docs` wrote it. Loaded when first asked for: hardly a request wants it. */
export async function apiDocument(): Promise<ApiDocument> {
  const { default: document } = await import('../../../../docs/openapi.json', { with: { type: 'json' } });
  return document as unknown as ApiDocument;
}
