// Every route of the API: one line per noun. The gateway, the dispatcher, the document and the tests read this.
import type { Route } from '../http/route.ts';
import { routes as alerts } from './alerts/contract.ts';
import { routes as batches } from './batches/contract.ts';
import { routes as buckets } from './buckets/contract.ts';
import { routes as clusters } from './clusters/contract.ts';
import { routes as collections } from './collections/contract.ts';
import { routes as documents } from './documents/contract.ts';
import { routes as keys } from './keys/contract.ts';
import { routes as namespaces } from './namespaces/contract.ts';
import { routes as objects } from './objects/contract.ts';
import { routes as plugins } from './plugins/contract.ts';
import { routes as retrievers } from './retrievers/contract.ts';
import { routes as secrets } from './secrets/contract.ts';
import { routes as service } from './service/contract.ts';
import { routes as tasks } from './tasks/contract.ts';
import { routes as taxonomies } from './taxonomies/contract.ts';
import { routes as transfers } from './transfers/contract.ts';
import { routes as uploads } from './uploads/contract.ts';
import { organizationRoutes as organizationWebhooks, routes as webhooks } from './webhooks/contract.ts';

export const contracts = {
  namespaces,
  keys,
  secrets,
  plugins,
  buckets,
  objects,
  collections,
  documents,
  batches,
  tasks,
  retrievers,
  taxonomies,
  uploads,
  transfers,
  clusters,
  alerts,
  webhooks,
  organizationWebhooks,
  service,
} as const satisfies Record<string, Readonly<Record<string, Route>>>;

export const allRoutes: readonly Route[] = Object.values(contracts).flatMap(
  (routes) => Object.values(routes) as Route[],
);
