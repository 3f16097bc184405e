// The one key builder: an organisation and a namespace go in, table keys come out. Nothing else makes keys, so no
// request can name a row outside its own tenant. The table's layout is in decisions, section 4.
import type { Key } from './table.ts';

/** Resources that are one row each in their namespace's partition. */
export const resourceKinds = [
  'BUCKET',
  'COLLECTION',
  'PLUGIN',
  'RETRIEVER',
  'TAXONOMY',
  'CLUSTER',
  'ALERT',
  'WEBHOOK',
  'UPLOAD',
] as const;
export type ResourceKind = (typeof resourceKinds)[number];

/** Rows that belong to a parent resource, newest id last. */
export type ChildKind = 'RUN' | 'EXEC' | 'VER' | 'REVIEW' | 'LOG';

/** Longer than any id or name: titles have 200 characters, of 4 bytes at most. */
const nameBytesMax = 800;
const partLengthMax = 512;

/** Whether a text can be the id or name of anything; what cannot must not be looked up, for the table refuses it. */
export function isNameable(text: string): boolean {
  return text.length > 0 && text.length <= partLengthMax && Buffer.byteLength(text) <= nameBytesMax;
}

/** `#` separates the parts of a key, so no part may hold one: a name such as `a#b` must not reach into another key. */
function part(text: string): string {
  if (text.length === 0 || text.length > partLengthMax)
    throw new Error(`a key part has 1 to ${partLengthMax} characters`);
  return text.replaceAll('%', '%25').replaceAll('#', '%23');
}

/** Keys that belong to an organisation. */
export interface OrgScope {
  readonly orgId: string;
  apiKeys(): { pk: string; prefix: string };
  apiKey(keyId: string): Key;
  namespace(namespaceId: string): Key;
  namespaces(): { pk: string; prefix: string };
  namespaceName(name: string): Key;
  task(taskId: string): Key;
  tasks(): { pk: string; prefix: string };
  audit(time: string, id: string): Key;
  rate(keyId: string, rateClass: string, windowStart: string): Key;
  /** `space` names who may see the stored reply again: namespace, key and route. */
  idempotency(space: string, key: string): Key;
  in(namespaceId: string): NamespaceScope;
}

/** Keys that belong to one namespace of an organisation. */
export interface NamespaceScope {
  readonly orgId: string;
  readonly namespaceId: string;
  readonly pk: string;
  resource(kind: ResourceKind, id: string): Key;
  resources(kind: ResourceKind): { pk: string; prefix: string };
  name(kind: ResourceKind, name: string): Key;
  dependency(parentId: string, childId: string): Key;
  dependencies(parentId: string): { pk: string; prefix: string };
  /** Rows under a resource, such as the runs of a cluster: `NS#<ns>#<KIND>#<id>` / `<child>#<id>`. */
  child(kind: ResourceKind, id: string, child: ChildKind, childId: string): Key;
  children(kind: ResourceKind, id: string, child: ChildKind): { pk: string; prefix: string };
  object(bucketId: string, objectId: string): Key;
  objects(bucketId: string): { pk: string; prefix: string };
  batch(bucketId: string, batchId: string): Key;
  batches(bucketId: string): { pk: string; prefix: string };
  document(collectionId: string, documentId: string): Key;
  documents(collectionId: string): { pk: string; prefix: string };
  head(collectionId: string): Key;
  /** How far a backend's copy of a collection's vectors is, and who works on it. */
  copy(collectionId: string, backend: string): Key;
  copies(collectionId: string): { pk: string; prefix: string };
  /** One move of the namespace to another vector backend. */
  migration(runId: string): Key;
  /** Says that a background task of the index is wanted, and whether somebody works on it. */
  indexWork(collectionId: string, task: string): Key;
  /** Proof that a commit of the index was applied; `token` is the caller's commit id. */
  commitToken(collectionId: string, token: string): Key;
  /** A small change of the index that waits for whoever commits next; `id` sorts by the time of its arrival. */
  pendingChange(collectionId: string, id: string): Key;
  pendingChanges(collectionId: string): { pk: string; prefix: string };
  /** Why a pending change was taken out instead of being committed. */
  refusedChange(collectionId: string, id: string): Key;
  /** The lock that makes batches of one collection run one at a time. */
  running(collectionId: string): Key;
  /** One of the places that a namespace has for batches that run. */
  runningSlot(place: number): Key;
  /** Names the batch that upgrades a collection, or did last. */
  upgrading(collectionId: string): Key;
  /** A value for plugins, sealed. */
  secret(name: string): Key;
  secrets(): { pk: string; prefix: string };
  /** Says that a deleted collection may still have rows and objects, until the sweeper found none. */
  purge(collectionId: string): Key;
  /** Names the batch that a repeated trigger gets, until that batch is planned; `digest` is that of the request. */
  pendingTrigger(bucketId: string, digest: string): Key;
  receipt(batchId: string, attempt: number, chunk: number): Key;
  receipts(batchId: string, attempt: number): { pk: string; prefix: string };
  delivery(webhookId: string, deliveryId: string): Key;
  deliveries(webhookId: string): { pk: string; prefix: string };
}

export function orgScope(orgId: string): OrgScope {
  const pk = `ORG#${part(orgId)}`;
  return {
    orgId,
    apiKeys: () => ({ pk, prefix: 'KEY#' }),
    apiKey: (keyId) => ({ pk, sk: `KEY#${part(keyId)}` }),
    namespace: (id) => ({ pk, sk: `NS#${part(id)}` }),
    namespaces: () => ({ pk, prefix: 'NS#' }),
    namespaceName: (name) => ({ pk, sk: `NAME#NS#${part(name)}` }),
    task: (id) => ({ pk: `${pk}#TASK`, sk: `TASK#${part(id)}` }),
    tasks: () => ({ pk: `${pk}#TASK`, prefix: 'TASK#' }),
    audit: (time, id) => ({ pk: `AUD#${part(orgId)}`, sk: `${time}#${part(id)}` }),
    rate: (keyId, rateClass, windowStart) => ({
      pk: `RATE#${part(keyId)}`,
      sk: `${part(rateClass)}#${windowStart}`,
    }),
    idempotency: (space, key) => ({ pk: `IDEM#${part(orgId)}#${part(space)}`, sk: part(key) }),
    in: (namespaceId) => namespaceScope(orgId, namespaceId),
  };
}

export function namespaceScope(orgId: string, namespaceId: string): NamespaceScope {
  const pk = `NS#${part(namespaceId)}`;
  const bucketPk = (id: string) => `${pk}#BKT#${part(id)}`;
  const collectionPk = (id: string) => `${pk}#COL#${part(id)}`;
  const receiptPk = (batchId: string, attempt: number) => `BTCH#${part(batchId)}#${attempt}`;
  const webhookPk = (id: string) => `${pk}#WH#${part(id)}`;
  return {
    orgId,
    namespaceId,
    pk,
    resource: (kind, id) => ({ pk, sk: `${kind}#${part(id)}` }),
    resources: (kind) => ({ pk, prefix: `${kind}#` }),
    name: (kind, name) => ({ pk, sk: `NAME#${kind}#${part(name)}` }),
    dependency: (parentId, childId) => ({ pk, sk: `DEP#${part(parentId)}#${part(childId)}` }),
    dependencies: (parentId) => ({ pk, prefix: `DEP#${part(parentId)}#` }),
    child: (kind, id, child, childId) => ({
      pk: `${pk}#${kind}#${part(id)}`,
      sk: `${child}#${part(childId)}`,
    }),
    children: (kind, id, child) => ({ pk: `${pk}#${kind}#${part(id)}`, prefix: `${child}#` }),
    object: (bucketId, id) => ({ pk: bucketPk(bucketId), sk: `OBJ#${part(id)}` }),
    objects: (bucketId) => ({ pk: bucketPk(bucketId), prefix: 'OBJ#' }),
    batch: (bucketId, id) => ({ pk: bucketPk(bucketId), sk: `BTCH#${part(id)}` }),
    batches: (bucketId) => ({ pk: bucketPk(bucketId), prefix: 'BTCH#' }),
    document: (collectionId, id) => ({ pk: collectionPk(collectionId), sk: `DOC#${part(id)}` }),
    documents: (collectionId) => ({ pk: collectionPk(collectionId), prefix: 'DOC#' }),
    head: (collectionId) => ({ pk: collectionPk(collectionId), sk: 'HEAD' }),
    copy: (collectionId, backend) => ({ pk: collectionPk(collectionId), sk: `COPY#${part(backend)}` }),
    copies: (collectionId) => ({ pk: collectionPk(collectionId), prefix: 'COPY#' }),
    migration: (runId) => ({ pk, sk: `MIGRATION#${part(runId)}` }),
    indexWork: (collectionId, task) => ({ pk: collectionPk(collectionId), sk: `WORK#${part(task)}` }),
    commitToken: (collectionId, token) => ({ pk: collectionPk(collectionId), sk: `TOKEN#${part(token)}` }),
    pendingChange: (collectionId, id) => ({ pk: collectionPk(collectionId), sk: `PEND#${part(id)}` }),
    pendingChanges: (collectionId) => ({ pk: collectionPk(collectionId), prefix: 'PEND#' }),
    refusedChange: (collectionId, id) => ({ pk: collectionPk(collectionId), sk: `REFUSED#${part(id)}` }),
    running: (collectionId) => ({ pk: collectionPk(collectionId), sk: 'RUN' }),
    runningSlot: (place) => ({ pk, sk: `SLOT#${place}` }),
    upgrading: (collectionId) => ({ pk: collectionPk(collectionId), sk: 'UPGRADE' }),
    secret: (name) => ({ pk, sk: `SECRET#${part(name)}` }),
    secrets: () => ({ pk, prefix: 'SECRET#' }),
    purge: (collectionId) => ({ pk, sk: `PURGE#${part(collectionId)}` }),
    pendingTrigger: (bucketId, digest) => ({ pk: bucketPk(bucketId), sk: `TRIG#${part(digest)}` }),
    receipt: (batchId, attempt, chunk) => ({
      pk: receiptPk(batchId, attempt),
      sk: `RCPT#${String(chunk).padStart(6, '0')}`,
    }),
    receipts: (batchId, attempt) => ({ pk: receiptPk(batchId, attempt), prefix: 'RCPT#' }),
    delivery: (webhookId, id) => ({ pk: webhookPk(webhookId), sk: `DLV#${part(id)}` }),
    deliveries: (webhookId) => ({ pk: webhookPk(webhookId), prefix: 'DLV#' }),
  };
}

/** The key row that the authorizer reads before it knows any organisation. */
export function apiKeyRow(keyId: string): Key {
  return { pk: `KEY#${part(keyId)}`, sk: 'KEY' };
}

const shards = 16;

/** Spreads rows that a timer reads over 16 partitions. */
export function shardOf(id: string): number {
  let hash = 0;
  for (let i = 0; i < id.length; i++) hash = (hash * 31 + id.charCodeAt(i)) >>> 0;
  return hash % shards;
}

export function outboxKey(time: string, eventId: string): Key {
  return { pk: `OUTBOX#${shardOf(eventId)}`, sk: `${time}#${part(eventId)}` };
}

/** The two attributes that put a row into the sparse index `due`. */
export function dueAttributes(id: string, dueAt: string): { due_pk: string; due_at: string } {
  return { due_pk: `DUE#${shardOf(id)}`, due_at: dueAt };
}

export const dueShards: readonly string[] = Array.from({ length: shards }, (_, i) => `DUE#${i}`);
