// Copies of vectors in Amazon S3 Vectors. The client is loaded when it is first used: most stages never do.
import type { S3VectorsClient, S3VectorsClientConfig } from '@aws-sdk/client-s3vectors';
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
import { indexNameOf, indexPrefixOf, s3Vectors } from '../backends/s3-vectors.ts';

type Sdk = typeof import('@aws-sdk/client-s3vectors');

/** Name of the one metadata key: the sequence number, as a text, since it may have 53 bits. */
const seqKey = 'seq';
const rowsPerPage = 1_000;
/** Shares of an index that are listed side by side to count it; the service allows 16. */
const countShares = 4;

const codes: Readonly<Record<string, BackendErrorCode>> = {
  NotFoundException: 'index_missing',
  TooManyRequestsException: 'throttled',
  ValidationException: 'refused',
  ConflictException: 'refused',
  AccessDeniedException: 'forbidden',
  ServiceQuotaExceededException: 'quota',
};

function fault(operation: string, error: unknown): BackendError {
  if (error instanceof BackendError) return error;
  const { name = 'Error', message = '' } = error as Error;
  const code = codes[name] ?? (name.startsWith('Kms') ? 'forbidden' : 'unavailable');
  return new BackendError(s3Vectors.title, code, `${operation}: ${name}: ${message}`, error);
}

export class S3VectorsBackend implements VectorBackend {
  readonly limits: BackendLimits = s3Vectors.limits;
  readonly #bucket: string;
  readonly #config: S3VectorsClientConfig;
  #loaded: Promise<{ readonly sdk: Sdk; readonly client: S3VectorsClient }> | undefined;

  /** @param bucket name of the vector bucket */
  constructor(bucket: string, config: S3VectorsClientConfig = {}) {
    this.#bucket = bucket;
    this.#config = { maxAttempts: 5, ...config };
  }

  async ensure(index: CopyIndex): Promise<void> {
    const distanceMetric = index.metric === 'euclid' ? 'euclidean' : 'cosine';
    if (index.metric === 'dot') {
      throw new BackendError(s3Vectors.title, 'refused', 'the service has no inner product');
    }
    try {
      await this.#call('CreateIndex', async ({ sdk, client }) =>
        client.send(
          new sdk.CreateIndexCommand({
            ...this.#place(index),
            dataType: 'float32',
            dimension: index.dims,
            distanceMetric,
            metadataConfiguration: { nonFilterableMetadataKeys: [seqKey] },
          }),
        ),
      );
    } catch (error) {
      if (((error as Error).cause as Error | undefined)?.name !== 'ConflictException') throw error;
      const found = await this.#call('GetIndex', async ({ sdk, client }) =>
        client.send(new sdk.GetIndexCommand(this.#place(index))),
      );
      const { dimension, distanceMetric: metric } = found.index!;
      if (dimension === index.dims && metric === distanceMetric) return;
      throw new BackendError(
        s3Vectors.title,
        'refused',
        `the index of ${index.feature_uri} is there with ${dimension} dimensions and ${metric}, needs ${index.dims} and ${distanceMetric}`,
      );
    }
  }

  async put(index: CopyIndex, rows: readonly CopyRow[]): Promise<void> {
    await this.#call('PutVectors', async ({ sdk, client }) =>
      client.send(
        new sdk.PutVectorsCommand({
          ...this.#place(index),
          vectors: rows.map(({ id, seq, vector }) => ({
            key: id,
            data: { float32: [...vector] },
            metadata: { [seqKey]: String(seq) },
          })),
        }),
      ),
    );
  }

  async remove(index: CopyIndex, ids: readonly string[]): Promise<void> {
    await this.#call('DeleteVectors', async ({ sdk, client }) =>
      client.send(new sdk.DeleteVectorsCommand({ ...this.#place(index), keys: [...ids] })),
    );
  }

  async query(index: CopyIndex, vector: Float32Array, k: number): Promise<readonly string[]> {
    const ids: string[] = [];
    let nextToken: string | undefined;
    do {
      const token = nextToken;
      const page = await this.#call('QueryVectors', async ({ sdk, client }) =>
        client.send(
          new sdk.QueryVectorsCommand({
            ...this.#place(index),
            topK: k,
            queryVector: { float32: [...vector] },
            ...(token === undefined ? {} : { nextToken: token }),
          }),
        ),
      );
      for (const { key } of page.vectors ?? []) ids.push(key!);
      nextToken = page.nextToken;
    } while (nextToken !== undefined && nextToken !== '' && ids.length < k);
    return ids.slice(0, k);
  }

  /** Lists every key, in shares side by side. */
  async count(index: CopyIndex): Promise<number> {
    const counts = await Promise.all(
      Array.from({ length: countShares }, async (_, share) => {
        let counted = 0;
        let cursor: string | undefined;
        do {
          const page = await this.#page(index, cursor, {
            segmentCount: countShares,
            segmentIndex: share,
          });
          counted += page.rows.length;
          cursor = page.next;
        } while (cursor !== undefined);
        return counted;
      }),
    );
    return counts.reduce((sum, one) => sum + one, 0);
  }

  list(
    index: CopyIndex,
    cursor?: string,
  ): Promise<{ readonly rows: readonly HeldRow[]; readonly next?: string }> {
    return this.#page(index, cursor, { returnMetadata: true });
  }

  /** The service builds its own structures. */
  async settle(): Promise<void> {}

  async drop(index: CopyName): Promise<void> {
    await this.#dropNamed(indexNameOf(index));
  }

  async dropAll(scope: { readonly namespace_id: string; readonly collection_id?: string }): Promise<void> {
    for (;;) {
      const page = await this.#call('ListIndexes', async ({ sdk, client }) =>
        client.send(
          new sdk.ListIndexesCommand({ vectorBucketName: this.#bucket, prefix: indexPrefixOf(scope) }),
        ),
      );
      const names = (page.indexes ?? []).map(({ indexName }) => indexName!);
      if (names.length === 0) return;
      for (const name of names) await this.#dropNamed(name);
    }
  }

  async #dropNamed(indexName: string): Promise<void> {
    try {
      await this.#call('DeleteIndex', async ({ sdk, client }) =>
        client.send(new sdk.DeleteIndexCommand({ vectorBucketName: this.#bucket, indexName })),
      );
    } catch (error) {
      if (!(error instanceof BackendError && error.code === 'index_missing')) throw error;
    }
  }

  async #page(
    index: CopyIndex,
    cursor: string | undefined,
    options: {
      readonly returnMetadata?: boolean;
      readonly segmentCount?: number;
      readonly segmentIndex?: number;
    },
  ): Promise<{ rows: HeldRow[]; next?: string }> {
    const page = await this.#call('ListVectors', async ({ sdk, client }) =>
      client.send(
        new sdk.ListVectorsCommand({
          ...this.#place(index),
          ...options,
          maxResults: rowsPerPage,
          ...(cursor === undefined ? {} : { nextToken: cursor }),
        }),
      ),
    );
    const rows = (page.vectors ?? []).map(({ key, metadata }) => {
      const seq = (metadata as Record<string, unknown> | undefined)?.[seqKey];
      // A row that somebody else put has no number of ours, so it is replaced.
      return { id: key!, seq: typeof seq === 'string' ? Number(seq) : -1 };
    });
    return { rows, ...(page.nextToken ? { next: page.nextToken } : {}) };
  }

  #place(index: CopyIndex): { vectorBucketName: string; indexName: string } {
    return { vectorBucketName: this.#bucket, indexName: indexNameOf(index) };
  }

  async #call<T>(
    operation: string,
    work: (loaded: { readonly sdk: Sdk; readonly client: S3VectorsClient }) => Promise<T>,
  ): Promise<T> {
    this.#loaded ??= import('@aws-sdk/client-s3vectors').then((sdk) => ({
      sdk,
      client: new sdk.S3VectorsClient(this.#config),
    }));
    try {
      return await work(await this.#loaded);
    } catch (error) {
      throw fault(operation, error);
    }
  }
}
