// Requests about documents -> service calls -> replies.
import type { NsCtx } from '../../context.ts';
import type { Handlers } from '../../http/handler.ts';
import { Answer } from '../../http/handler.ts';
import type { ListInput } from '../../page.ts';
import { mergeListInput } from '../../page.ts';
import type { StoredCollection } from '../collections/service.ts';
import { getCollection } from '../collections/service.ts';
import { aggregateDocuments } from './aggregate.ts';
import type { Document, routes } from './contract.ts';
import { deleteDocuments } from './delete-many.ts';
import { distinctValues } from './distinct.ts';
import { listDocuments } from './list.ts';
import type { StoredDocument } from './service.ts';
import {
  deleteDocument,
  getDocument,
  patchDocument,
  presentWithBlobs,
  putDocument,
  vectorsOf,
} from './service.ts';

interface Flags {
  readonly return_vectors?: boolean | null | undefined;
  readonly return_presigned_urls?: boolean | null | undefined;
  readonly return_url?: boolean | null | undefined;
}

async function present(
  ctx: NsCtx,
  collection: StoredCollection,
  stored: StoredDocument,
  flags: Flags = {},
): Promise<Document> {
  const vectors = flags.return_vectors ? await vectorsOf(ctx, collection, stored.document_id) : undefined;
  const presigned = flags.return_presigned_urls === true || flags.return_url === true;
  return (await presentWithBlobs(ctx, stored, { vectors, presigned })) as unknown as Document;
}

async function page(ctx: NsCtx, idOrName: string, input: ListInput, flags: Flags) {
  const collection = await getCollection(ctx, idOrName);
  const { results, ...rest } = await listDocuments(ctx, collection, input, {
    vectors: flags.return_vectors === true,
  });
  return {
    ...rest,
    results: await Promise.all(results.map((document) => present(ctx, collection, document, flags))),
  };
}

async function answer(ctx: NsCtx, collection: StoredCollection, stored: StoredDocument, flags?: Flags) {
  return new Answer(await present(ctx, collection, stored, flags), { etag: stored.revision });
}

export const handlers: Handlers<typeof routes> = {
  listDocuments: ({ ctx, params, query }) => page(ctx, params.collection!, query, query),
  searchDocuments: ({ ctx, params, query, body }) =>
    page(
      ctx,
      params.collection!,
      mergeListInput(query, body),
      mergeListInput(query as ListInput, body as ListInput) as Flags,
    ),
  distinctDocuments: async ({ ctx, params, body }) =>
    distinctValues(ctx, await getCollection(ctx, params.collection!), body),
  aggregateDocuments: async ({ ctx, params, body }) =>
    aggregateDocuments(ctx, await getCollection(ctx, params.collection!), body),
  getDocument: async ({ ctx, params, query }) => {
    const collection = await getCollection(ctx, params.collection!);
    return answer(ctx, collection, await getDocument(ctx, collection, params.document!), query);
  },
  putDocument: async ({ ctx, params, body, ifMatch }) => {
    const collection = await getCollection(ctx, params.collection!);
    return answer(ctx, collection, await putDocument(ctx, collection, params.document!, body, ifMatch));
  },
  patchDocument: async ({ ctx, params, body, ifMatch }) => {
    const collection = await getCollection(ctx, params.collection!);
    return answer(ctx, collection, await patchDocument(ctx, collection, params.document!, body, ifMatch));
  },
  deleteDocuments: async ({ ctx, params, body }) =>
    deleteDocuments(ctx, await getCollection(ctx, params.collection!), body),
  batchDeleteDocuments: async ({ ctx, params, body }) =>
    deleteDocuments(ctx, await getCollection(ctx, params.collection!), body),
  deleteDocument: async ({ ctx, params, ifMatch }) => {
    const collection = await getCollection(ctx, params.collection!);
    await deleteDocument(ctx, collection, params.document!, ifMatch);
    return { success: true as const, message: `Document ${params.document!} deleted.` };
  },
};
