// The published document, OpenAPI 3.1, made from the routes: paths, parameters, bodies, replies, errors and examples.
// Only the generator and tests import this: the Lambdas serve the file that it wrote (docs/openapi.json).
import type { ZodOpenApiObject, ZodOpenApiOperationObject, ZodOpenApiPathsObject } from 'zod-openapi';
import { createDocument } from 'zod-openapi';
import { errorComponents, errorResponses } from './openapi-errors.ts';
import { headerComponents, parameterComponents, parametersOf, replyHeaders } from './openapi-parameters.ts';
import type { Route } from './route.ts';
import { clientForm } from './route.ts';

/** Parsed JSON of the document: only its own keys are read here. */
export interface OpenApiDocument {
  readonly openapi: string;
  readonly info: { readonly title: string; readonly version: string };
  readonly paths: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  readonly components: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  readonly [member: string]: unknown;
}

const introduction = `Granary keeps raw objects, turns them into features by your own Python plugins in batches, and searches, classifies,
clusters and watches the result, in your own AWS account.

**Keys.** Send \`Authorization: Bearer <key>\`. Each operation says which permission it needs (\`x-permission\`).

**Two forms of each path.** \`/v1/namespaces/{namespace}/buckets\` and \`/v1/buckets\` with the header \`X-Namespace\` (an id or a
name) are the same operation; \`x-client-path\` gives the second form. A path segment may be an id or a name.

**Errors.** One envelope for all of them; \`error.details.code\` is stable and never reused. With
\`Accept: application/problem+json\` the same facts come as RFC 9457.

**Repeating.** Send an \`Idempotency-Key\` with a POST, and a repetition within 24 hours gets the first answer again.

**Lists.** By GET with a query or by POST to \`.../list\` with filters; go on with \`pagination.next_cursor\`.`;

const tagTexts: Readonly<Record<string, string>> = {
  namespaces: 'Tenants of the organisation; everything else lives in one.',
  'api-keys': 'Keys, with permissions and an end; shown once.',
  secrets: 'Values that the plugins of a namespace get by name; they go in and never out.',
  plugins: 'Feature extractors of your own, in Python: upload, confirm, deploy.',
  buckets: 'Where objects are put, with the schema that they must fit.',
  objects: 'Raw data: lists of blobs, inline or stored apart.',
  uploads: 'Files by presigned URL, made into objects at confirm.',
  collections: 'Which plugins run over which buckets.',
  documents: 'What batches made of objects: fields, enrichments, vectors.',
  batches: 'Runs over objects: started, watched, cancelled, tried again.',
  tasks: 'What runs in the background.',
  retrievers: 'Stored searches: stages, templates, inputs.',
  taxonomies: 'Enrichment of documents by similar reference documents.',
  clusters: 'Groups of similar documents, with labels and a map.',
  alerts: 'Conditions on new documents, and whom to tell.',
  webhooks: 'Signed deliveries of events of one namespace.',
  'organization-webhooks': 'Signed deliveries of events of every namespace.',
  service: 'The service itself; no key is needed.',
};

function operationOf(route: Route, versioned: ReadonlySet<string>): ZodOpenApiOperationObject {
  const form = clientForm(route.path);
  const empty = route.reply._zod.def.type === 'undefined';
  const content = empty
    ? undefined
    : {
        'application/json': {
          schema: route.reply,
          ...(route.example?.reply === undefined ? {} : { example: route.example.reply }),
        },
      };
  return {
    operationId: route.operation,
    tags: [route.tag],
    summary: route.summary,
    ...(route.description === undefined ? {} : { description: route.description }),
    ...(route.permission === 'none' ? { security: [] } : {}),
    'x-permission': route.permission === 'bootstrap' ? 'admin' : route.permission,
    'x-rate-class': route.rate,
    ...(form === undefined ? {} : { 'x-client-path': form }),
    parameters: parametersOf(route),
    // biome-ignore lint/suspicious/noExplicitAny: every contract's query is an object; the route's type says "some schema".
    ...(route.query ? { requestParams: { query: route.query as any } } : {}),
    ...(route.body
      ? {
          requestBody: {
            required: !route.bodyOptional,
            content: {
              'application/json': {
                schema: route.body,
                ...(route.example?.body === undefined ? {} : { example: route.example.body }),
              },
            },
          },
        }
      : {}),
    responses: {
      [String(route.status)]: {
        description: empty ? 'Done; no body.' : 'Done.',
        headers: replyHeaders(route, versioned.has(route.path)),
        ...(content ? { content } : {}),
      },
      ...errorResponses(route),
    },
  } as ZodOpenApiOperationObject;
}

/** The shape that `z.json()` has in the document; each use brings its own copy under a generated name. */
function isJsonCopy(name: string, schema: unknown): boolean {
  if (!/^__schema\d+$/.test(name)) return false;
  const self = `#/components/schemas/${name}`;
  const text = JSON.stringify(schema);
  return (
    text.includes('"anyOf":[{"type":"string"},{"type":"number"},{"type":"boolean"},{"type":"null"}') &&
    text.split(self).length === 3
  );
}

/** Replaces the many copies of "any JSON" by one component. @throws Error for another schema without a name */
function withOneJson(document: OpenApiDocument): OpenApiDocument {
  const schemas = { ...document.components.schemas };
  const copies = Object.keys(schemas).filter((name) => /^__schema\d+$/.test(name));
  for (const name of copies) {
    if (!isJsonCopy(name, schemas[name])) {
      throw new Error(
        `a schema that refers to itself has no name; give it .meta({ id }): ${JSON.stringify(schemas[name]).slice(0, 400)}`,
      );
    }
    delete schemas[name];
  }
  schemas.Json = { description: 'Any JSON value.' };
  const text = JSON.stringify({
    ...document,
    components: { ...document.components, schemas: sorted(schemas) },
  });
  return JSON.parse(
    text.replaceAll(/#\/components\/schemas\/__schema\d+"/g, '#/components/schemas/Json"'),
  ) as OpenApiDocument;
}

function sorted<T>(record: Readonly<Record<string, T>>): Record<string, T> {
  return Object.fromEntries(Object.entries(record).sort(([a], [b]) => (a < b ? -1 : 1)));
}

/**
 * The whole document, the same text for the same routes.
 *
 * @param version of Granary
 * @throws Error when two operations share a name, or a schema cannot be described
 */
export function openApiDocument(routes: readonly Route[], version: string): OpenApiDocument {
  const names = routes.map((route) => route.operation);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw new Error(`two routes are named ${twice}`);
  const versioned = new Set(
    routes.filter((route) => route.errors.includes('request_stale')).map((route) => route.path as string),
  );
  const paths: ZodOpenApiPathsObject = {};
  for (const route of routes) {
    paths[route.path] = { ...paths[route.path], [route.method.toLowerCase()]: operationOf(route, versioned) };
  }
  const tags = [...new Set(routes.map((route) => route.tag))];
  const source: ZodOpenApiObject = {
    openapi: '3.1.0',
    info: {
      title: 'Granary',
      version,
      summary: 'A feature warehouse for your own AWS account.',
      description: introduction,
      license: { name: 'Apache-2.0', identifier: 'Apache-2.0' },
    },
    // Relative to this document, which stands at <base>/v1/openapi.json.
    servers: [{ url: '..', description: 'the deployment that this document came from' }],
    security: [{ key: [] }],
    tags: tags.map((name) => ({ name, description: tagTexts[name] ?? `Operations on ${name}.` })),
    paths,
    components: {
      securitySchemes: {
        key: {
          type: 'http',
          scheme: 'bearer',
          bearerFormat: 'grn_<live|test>_...',
          description: 'An API key of the organisation.',
        },
      },
      ...errorComponents(routes),
      parameters: parameterComponents(routes),
      headers: headerComponents,
    },
  } as ZodOpenApiObject;
  return withOneJson(createDocument(source) as unknown as OpenApiDocument);
}
