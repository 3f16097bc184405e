// The tasks of the index worker by name. A new one is a file, a name in core/events.ts and a line here.
import { dropCollectionCopies, sync } from '../core/backends/index-tasks.ts';
import type { IndexTask } from '../core/events.ts';
import { runMigration } from '../core/resources/namespaces/workflow.ts';
import { runTransfer } from '../core/resources/transfers/service.ts';
import { collect } from '../core/store/index-jobs/collect.ts';
import { compact } from '../core/store/index-jobs/compact.ts';
import type { IndexTaskRun } from '../core/store/index-jobs/task.ts';

export const tasks: Readonly<Record<IndexTask, IndexTaskRun>> = {
  compact,
  collect,
  export: runTransfer,
  import: runTransfer,
  sync,
  drop_copies: dropCollectionCopies,
  migrate: runMigration,
};
