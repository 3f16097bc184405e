// The handlers of every route: one line per noun, in the order of contracts.ts. A route without one does not compile.
import type { AnyHandler, Handlers } from '../http/handler.ts';
import { handlers as alerts } from './alerts/handlers.ts';
import { handlers as batches } from './batches/handlers.ts';
import { handlers as buckets } from './buckets/handlers.ts';
import { handlers as clusters } from './clusters/handlers.ts';
import { handlers as collections } from './collections/handlers.ts';
import type { contracts } from './contracts.ts';
import { handlers as documents } from './documents/handlers.ts';
import { handlers as keys } from './keys/handlers.ts';
import { handlers as namespaces } from './namespaces/handlers.ts';
import { handlers as objects } from './objects/handlers.ts';
import { handlers as plugins } from './plugins/handlers.ts';
import { handlers as retrievers } from './retrievers/handlers.ts';
import { handlers as secrets } from './secrets/handlers.ts';
import { handlers as service } from './service/handlers.ts';
import { handlers as tasks } from './tasks/handlers.ts';
import { handlers as taxonomies } from './taxonomies/handlers.ts';
import { handlers as transfers } from './transfers/handlers.ts';
import { handlers as uploads } from './uploads/handlers.ts';
import { organizationHandlers as organizationWebhooks, handlers as webhooks } from './webhooks/handlers.ts';

const byNoun: { readonly [Noun in keyof typeof contracts]: Handlers<(typeof contracts)[Noun]> } = {
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
};

export const allHandlers: Readonly<Record<string, AnyHandler>> = Object.assign({}, ...Object.values(byNoun));
