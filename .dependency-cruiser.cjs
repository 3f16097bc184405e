// Which files may import which: the one authority. test/architecture plants a violation of every rule.
// CommonJS, because dependency-cruiser reads its settings so.

/**
 * Which nouns call which, by the other's service or contract. A new call is a new word here, and shows in review.
 *
 * A finished batch does not call taxonomies, clusters or alerts: its state machine orders the steps.
 */
const calls = {
  // A namespace shows and moves the vectors of its collections, as a task.
  namespaces: ['batches', 'collections', 'tasks'],
  keys: [],
  secrets: [],
  // A call of a plugin carries the secrets that it declares.
  plugins: ['secrets'],
  buckets: [],
  // An object announces itself only where a webhook listens.
  objects: ['buckets', 'webhooks'],
  uploads: ['buckets', 'objects'],
  collections: ['buckets', 'plugins'],
  documents: ['collections'],
  batches: ['buckets', 'collections', 'documents', 'objects', 'plugins', 'tasks'],
  tasks: [],
  retrievers: ['collections', 'documents', 'plugins'],
  taxonomies: ['clusters', 'collections', 'documents', 'retrievers', 'tasks'],
  clusters: ['collections', 'documents', 'tasks'],
  // A channel with a URL is a hidden webhook.
  alerts: ['collections', 'documents', 'retrievers', 'webhooks'],
  webhooks: [],
  // Exports read documents and imports write them, as batches do.
  transfers: ['collections', 'documents', 'tasks'],
  service: [],
};

/** The files of a noun that others may import: its service and contract, and where running it is a file of its own. */
const faces = { plugins: ['service', 'contract', 'run'], retrievers: ['service', 'contract', 'execute'] };
const faceOf = (noun) => `(${(faces[noun] ?? ['service', 'contract']).join('|')})\\.ts$`;

const core = '^functions/core/';
const resources = `${core}resources/`;
const slice = `${resources}[^/]+/`;
const lambdas = '^functions/(?!core/)[^/]+/';
/** Parts of `http` that know no request: who asks, and the comparison of versions. */
const httpWithoutRequests = '(principal|version)\\.ts$';

const forbid = (name, comment, from, to) => ({ name, comment, severity: 'error', from, to });

const sliceRules = Object.entries(calls).map(([noun, callees]) =>
  forbid(
    `slice-${noun}`,
    `${noun} may call ${callees.join(', ') || 'no other noun'}, by service or contract (table in .dependency-cruiser.cjs).`,
    { path: `${resources}${noun}/` },
    {
      path: `${resources}[^/]+/`,
      pathNot: [`${resources}${noun}/`, ...callees.map((callee) => `${resources}${callee}/${faceOf(callee)}`)],
    },
  ),
);

module.exports = {
  forbidden: [
    // Tables of data that Python reads too are no code.
    forbid('core-stands-alone', 'What every Lambda shares knows neither Lambdas nor tools.', { path: core }, {
      path: [lambdas, '^(infra|cli|console|bench|local|test)/'],
      pathNot: '^functions/clusterer/algorithms/(parameters|ignored)\\.json$',
    }),
    forbid('lambdas-apart', 'A Lambda does not import another; what two need is in core.', { path: '^functions/(?!core/)([^/]+)/' }, {
      path: lambdas,
      pathNot: '^functions/$1/',
    }),
    forbid('lambdas-without-tools', 'Lambdas know neither infrastructure nor tools.', { path: lambdas }, {
      path: '^(infra|cli|console|bench|local|test)/',
    }),
    forbid('infra-reads-contracts', 'Infrastructure reads routes, names, environment and errors; it runs no application code.', { path: '^infra/' }, {
      path: '^functions/',
      pathNot: [`${core}(env|events|errors)\\.ts$`, `${core}http/route\\.ts$`, `${resources}contracts\\.ts$`, `${core}labels/settings\\.ts$`],
    }),
    forbid('infra-without-tools', 'Infrastructure is not built on tools or tests.', { path: '^infra/' }, { path: '^(cli|console|bench|local|test)/' }),
    // The rules for plugin archives are pure, and `granary plugin validate` must judge by the very same ones.
    forbid('clients-read-contracts', 'CLI and console know the API as any client does.', { path: '^(cli|console)/' }, {
      path: '^(functions|infra)/',
      pathNot: [`${resources}contracts\\.ts$`, `${slice}contract\\.ts$`, `${core}(errors|page)\\.ts$`, `${resources}plugins/archive\\.ts$`],
    }),
    forbid('engines-are-pure', 'Vectors, retrieval and conditions compute; they see neither storage nor HTTP nor resources.', { path: `${core}(vectors|retrieval|conditions)/` }, {
      path: [`${core}(aws|store|http|resources)/`, '(^|/)@aws-sdk/'],
    }),
    forbid('backends-keep-copies', 'A vector backend knows the index and its own protocol; SDKs, HTTP, searches and scans over several functions use it, not the other way round.', { path: `${core}backends/` }, {
      path: [`${core}(aws|http|retrieval|egress|fan-out|interchange)/`, '(^|/)@aws-sdk/'],
    }),
    forbid('index-knows-no-backends', 'The segments are the source of truth, and whole without any copy of them.', { path: `${core}(store|vectors|fan-out)/` }, {
      path: `${core}backends/`,
    }),
    forbid('contracts-are-data', 'A contract says what goes over the wire and nothing of how it is done.', { path: `${slice}contract\\.ts$` }, {
      path: [`${core}(aws|store|egress)/`, `${slice}(handlers|service|store|workflow|steps)\\.ts$`, '(^|/)@aws-sdk/'],
    }),
    forbid('handlers-call-services', 'A handler turns a request into one call of a service; rows are none of its business.', { path: `${slice}handlers\\.ts$` }, {
      path: [`${core}(aws|store|egress)/`, `${slice}store\\.ts$`, '(^|/)@aws-sdk/'],
    }),
    forbid('services-know-no-http', 'Rules hold for workflows too, which have no request.', { path: `${slice}(?!contract\\.ts|handlers\\.ts)[^/]+\\.ts$` }, {
      path: [`${core}http/`, `${slice}handlers\\.ts$`],
      pathNot: `${core}http/${httpWithoutRequests}`,
    }),
    forbid('stores-know-no-rules', 'A store knows keys and access patterns of its noun.', { path: `${slice}store\\.ts$` }, {
      path: `${slice}(handlers|service|workflow|steps)\\.ts$`,
    }),
    forbid('core-parts-know-no-resources', 'What lies below the nouns does not know them.', { path: `${core}(?!resources/)` }, { path: resources }),
    forbid('aws-in-one-place', 'Only core/aws speaks to the SDK, so that its errors are mapped and tests run in memory.', {
      path: '^functions/',
      pathNot: `${core}aws/`,
    }, { path: '(^|/)@aws-sdk/' }),
    // range-sockets connects to where the SDK would: the address is that of the bucket, no user names it.
    forbid('one-way-out', "Users' URLs are called by core/egress only, which judges what they resolve to.", {
      path: '^functions/',
      pathNot: [`${core}egress/`, `${core}labels/`, `${core}aws/range-sockets\\.ts$`],
    }, { path: '^(node:)?(http|https|net|tls|dgram|http2)$' }),
    forbid('document-at-build-time', 'The Lambdas serve the document as a file; what makes it stays out of their bundles.', {
      path: '^functions/',
      pathNot: `${core}http/openapi[^/]*\\.ts$`,
    }, { path: [`${core}http/openapi[^/]*\\.ts$`, '(^|/)zod-openapi/'] }),
    // A cycle of types alone is none when the code runs.
    forbid('no-cycles', 'Two files that need each other are one.', {}, { circular: true, viaOnly: { dependencyTypesNot: ['type-only'] } }),
    forbid('resolvable', 'An import that leads nowhere.', { path: '^(cli|functions|infra|local|bench|docs|test)/' }, { couldNotResolve: true }),
    ...sliceRules,
  ],
  options: {
    // Following into aws-cdk-lib overflows the stack.
    doNotFollow: { path: 'node_modules' },
    // AssemblyScript, which has a compiler of its own.
    exclude: { path: '^functions/core/vectors/kernel/assembly/' },
    // Imports of types count: a service that needs a handler's type needs the handler.
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    moduleSystems: ['es6'],
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import', 'node', 'default', 'types'], extensions: ['.ts', '.js', '.mjs', '.json', '.d.ts'] },
  },
};
