// Names at the root of a document that belong to the service: nobody may use them for fields of their own.

const reservedFields: ReadonlySet<string> = new Set([
  'document_id',
  'collection_id',
  'document_blobs',
  'vectors',
  'metadata',
  'payload',
  'score',
]);

/** Whether a name is ours: reserved, or of the `_internal` kind. */
export function isReserved(name: string): boolean {
  return reservedFields.has(name) || name.startsWith('_');
}
