// Copies of vectors in LanceDB, which runs in a function of its own: its package is larger than all of ours.
import {
  BackendError,
  type BackendErrorCode,
  type BackendLimits,
  type CopyIndex,
  type CopyName,
  type CopyRow,
  type HeldRow,
  type VectorBackend,
} from '../backends/backend.ts';
import type { LanceAnswer, LanceReply, LanceRequest } from '../backends/lance-protocol.ts';
import { folderOf, lancedb, tableNameOf } from '../backends/lancedb.ts';
import type { FunctionCaller } from '../ports.ts';

const codes: readonly BackendErrorCode[] = [
  'unavailable',
  'throttled',
  'index_missing',
  'refused',
  'forbidden',
  'quota',
];

export class LanceBackend implements VectorBackend {
  readonly limits: BackendLimits = lancedb.limits;
  readonly #caller: FunctionCaller;

  /** @param caller of the function `lance` */
  constructor(caller: FunctionCaller) {
    this.#caller = caller;
  }

  async ensure(index: CopyIndex): Promise<void> {
    await this.#call('ensure', { ...place(index), op: 'ensure', dims: index.dims, metric: index.metric });
  }

  async put(index: CopyIndex, rows: readonly CopyRow[]): Promise<void> {
    const vectors = new Float32Array(rows.length * index.dims);
    for (const [i, { vector }] of rows.entries()) vectors.set(vector, i * index.dims);
    await this.#call('put', {
      ...place(index),
      op: 'put',
      dims: index.dims,
      ids: rows.map(({ id }) => id),
      seqs: rows.map(({ seq }) => seq),
      vectors: Buffer.from(vectors.buffer).toString('base64'),
    });
  }

  async remove(index: CopyIndex, ids: readonly string[]): Promise<void> {
    await this.#call('remove', { ...place(index), op: 'remove', ids });
  }

  async query(index: CopyIndex, vector: Float32Array, k: number): Promise<readonly string[]> {
    const query = Buffer.from(Float32Array.from(vector).buffer).toString('base64');
    const { ids } = await this.#call('query', {
      ...place(index),
      op: 'query',
      metric: index.metric,
      vector: query,
      k,
    });
    return ids;
  }

  async count(index: CopyIndex): Promise<number> {
    return (await this.#call('count', { ...place(index), op: 'count' })).count;
  }

  async list(
    index: CopyIndex,
    cursor?: string,
  ): Promise<{ readonly rows: readonly HeldRow[]; readonly next?: string }> {
    const { ids, seqs, next } = await this.#call('list', {
      ...place(index),
      op: 'list',
      ...(cursor === undefined ? {} : { cursor }),
    });
    return { rows: ids.map((id, i) => ({ id, seq: seqs[i]! })), ...(next === undefined ? {} : { next }) };
  }

  async settle(index: CopyIndex): Promise<void> {
    await this.#call('settle', { ...place(index), op: 'settle', metric: index.metric });
  }

  async drop(index: CopyName): Promise<void> {
    await this.#call('drop', { ...place(index), op: 'drop' });
  }

  async dropAll(scope: { readonly namespace_id: string; readonly collection_id?: string }): Promise<void> {
    await this.#call('drop_all', {
      op: 'drop_all',
      folder: folderOf(scope.namespace_id),
      prefix: scope.collection_id === undefined ? '' : `${scope.collection_id}-`,
    });
  }

  async #call<Op extends LanceRequest['op']>(
    op: Op,
    request: Extract<LanceRequest, { readonly op: Op }>,
  ): Promise<LanceReply[Op]> {
    let answer: LanceAnswer<Op>;
    try {
      answer = (await this.#caller.call(request)) as LanceAnswer<Op>;
    } catch (error) {
      throw new BackendError(lancedb.title, 'unavailable', `${op}: ${(error as Error).message}`, error);
    }
    if (answer.ok) return answer.reply;
    const code = codes.find((known) => known === answer.code) ?? 'unavailable';
    throw new BackendError(lancedb.title, code, `${op}: ${answer.message}`);
  }
}

function place(index: CopyName): { readonly folder: string; readonly table: string } {
  return { folder: folderOf(index.namespace_id), table: tableNameOf(index) };
}
