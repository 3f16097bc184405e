// Everything that can happen and be heard by webhooks: one closed table, and the form in which it travels.

/** Event name -> what it says. Webhooks subscribe to these names; an unknown one is a 422 that lists them. */
export const eventTable = {
  'batch.submitted': 'A batch was accepted and waits for its turn.',
  'batch.completed': 'A batch is done: its documents are visible and enriched.',
  'batch.failed': 'A batch ended without making anything visible.',
  'batch.canceled': 'A batch was cancelled by a request.',
  'plugin.deployed': 'A plugin version can be used by collections.',
  'plugin.failed': 'A plugin version could not be deployed.',
  'object.created': 'An object was put into a bucket.',
  'objects.created.batch': 'Several objects were put into a bucket by one request.',
  'object.updated': 'An object changed.',
  'object.deleted': 'An object was deleted.',
  'collection.created': 'A collection was made.',
  'collection.updated': 'A collection changed.',
  'collection.deleted': 'A collection was deleted.',
  'collection.documents.written': 'A batch wrote documents into a collection.',
  'collection.documents.deleted': 'One request deleted more documents than are announced one by one.',
  'collection.documents.batch_completed':
    'The same moment as batch.completed, for each collection of the batch.',
  'document.updated': 'A document was changed by a request.',
  'document.deleted': 'A document was deleted by a request.',
  'cluster.created': 'A cluster definition was made.',
  'cluster.updated': 'A cluster definition changed.',
  'cluster.deleted': 'A cluster definition was deleted.',
  'cluster.execution.started': 'A cluster run began.',
  'cluster.execution.completed': 'A cluster run is done.',
  'cluster.execution.failed': 'A cluster run ended with an error.',
  'taxonomy.created': 'A taxonomy was made.',
  'taxonomy.updated': 'A taxonomy changed.',
  'taxonomy.deleted': 'A taxonomy was deleted.',
  'alert.created': 'An alert was made.',
  'alert.updated': 'An alert changed.',
  'alert.deleted': 'An alert was deleted.',
  'alert.triggered': 'Documents met the condition of an alert.',
  'alert.execution.completed': 'An alert was evaluated over a batch.',
  'alert.execution.failed': 'An alert could not be evaluated.',
  'webhook.test': 'Somebody asked for a test delivery.',
  'webhook.exhausted': 'A delivery was given up after its last attempt.',
  'webhook.disabled': 'A webhook was switched off after failing for too long.',
} as const;

export type EventType = keyof typeof eventTable;
export const eventTypes = Object.keys(eventTable) as readonly EventType[];

/** What an event says; small (under 20 kB): ids instead of rows. */
export interface GranaryEvent {
  /** Stable over every repetition of the same fact, so that receivers can drop duplicates. */
  readonly event_id: string;
  readonly event_type: EventType;
  readonly occurred_at: string;
  readonly org_id: string;
  readonly namespace_id: string;
  readonly subject: { readonly type: string; readonly id: string };
  /** Holds `request_id`, and what the receiver needs to look the subject up. */
  readonly metadata: Readonly<Record<string, unknown>>;
  /** Deliver to this endpoint only (alert channels, tests), else to every webhook that subscribed. */
  readonly webhook_id?: string;
}

/** What the worker of the indexes can do for a collection; functions/compact/tasks.ts says by which file. */
export type IndexTask = 'compact' | 'collect' | 'export' | 'import' | 'sync' | 'drop_copies' | 'migrate';

/** Work that a workflow or worker must do; travels over the jobs queue. */
export type Job =
  | {
      readonly kind: 'batch';
      readonly org_id: string;
      readonly namespace_id: string;
      readonly bucket_id: string;
      readonly batch_id: string;
      readonly attempt: number;
      readonly request_id: string;
    }
  | {
      readonly kind: 'cluster';
      readonly org_id: string;
      readonly namespace_id: string;
      readonly cluster_id: string;
      readonly run_id: string;
      readonly request_id: string;
    }
  | {
      /** The time of a definition's schedule has come. */
      readonly kind: 'cluster_schedule';
      readonly org_id: string;
      readonly namespace_id: string;
      readonly cluster_id: string;
      readonly request_id: string;
    }
  | {
      readonly kind: 'taxonomy';
      readonly org_id: string;
      readonly namespace_id: string;
      readonly taxonomy_id: string;
      readonly collection_id: string;
      readonly run_id: string;
      readonly request_id: string;
    }
  | {
      readonly kind: 'namespace_delete';
      readonly org_id: string;
      readonly namespace_id: string;
      readonly request_id: string;
    }
  | {
      readonly kind: 'index';
      readonly task: IndexTask;
      readonly org_id: string;
      readonly namespace_id: string;
      /** `*` for what concerns the whole namespace. */
      readonly collection_id: string;
      /** Of an export, import or migration. */
      readonly run_id?: string;
      readonly request_id: string;
    };

/** A job for the worker of the indexes. */
export type IndexJob = Extract<Job, { readonly kind: 'index' }>;
