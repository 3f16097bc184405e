// What the suites against a deployed stack share: the stack's address, a client, polling with a deadline, plugins to upload.
import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { crc32 } from 'node:zlib';

export const projectFolder = fileURLToPath(new URL('../..', import.meta.url));

/** What `test/run.ts` writes into the file that GRANARY_TEST_OUTPUTS names. */
export interface DeployedStack {
  /** Of the AWS services; absent for a stack on AWS itself. */
  readonly endpoint?: string;
  /** Without a slash at the end. */
  readonly base_url: string;
  /** Stack name to its outputs. */
  readonly outputs: Readonly<Record<string, Readonly<Record<string, string>>>>;
  /** Makes API keys, and nothing else. */
  readonly bootstrap_secret: string;
  /** Of the emulator, for tests that end one of its workers. */
  readonly emulator_pid?: number;
  readonly rest_api_id: string;
}

/** @throws Error that says how to start one, if there is no stack to test. */
export function readStack(): DeployedStack {
  const file = process.env.GRANARY_TEST_OUTPUTS;
  if (file === undefined) {
    throw new Error(
      'GRANARY_TEST_OUTPUTS names no file; run these suites by `npm run test:emulator`, which deploys a stack first',
    );
  }
  return JSON.parse(readFileSync(file, 'utf8')) as DeployedStack;
}

export const stack: DeployedStack = readStack();

/** An output of any of the stacks. */
export function output(name: string): string {
  for (const outputs of Object.values(stack.outputs)) if (outputs[name] !== undefined) return outputs[name];
  throw new Error(`no stack has the output ${name}`);
}

// biome-ignore lint/suspicious/noExplicitAny: the suites read answers as a user's script would.
export type Json = any;
export type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE' | 'OPTIONS' | 'HEAD';

export interface Reply {
  readonly status: number;
  readonly headers: Headers;
  /** Parsed, or the text where it is not JSON; undefined if empty. */
  readonly body: Json;
}

export interface Asking {
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

/** One request to the API, whatever it answers. */
export async function ask(method: Method, path: string, { body, headers = {} }: Asking = {}): Promise<Reply> {
  const response = await fetch(`${stack.base_url}${path}`, {
    method,
    headers: { ...(body === undefined ? {} : { 'Content-Type': 'application/json' }), ...headers },
    ...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
    signal: AbortSignal.timeout(60_000),
  });
  const text = await response.text();
  return { status: response.status, headers: response.headers, body: parsed(text) };
}

function parsed(text: string): Json {
  if (text === '') return undefined;
  try {
    return JSON.parse(text);
  } catch {
    // The gateway's own faults may not be JSON, and a test wants to see them.
    return text;
  }
}

export interface Client {
  readonly key: string;
  /** Any answer. */
  ask(
    method: Method,
    path: string,
    body?: unknown,
    headers?: Readonly<Record<string, string>>,
  ): Promise<Reply>;
  /** The body of a 2xx. @throws Error with what the API said otherwise */
  call(
    method: Method,
    path: string,
    body?: unknown,
    headers?: Readonly<Record<string, string>>,
  ): Promise<Json>;
  /** The error envelope of a request that must be refused with this status. */
  refused(
    status: number,
    method: Method,
    path: string,
    body?: unknown,
    headers?: Readonly<Record<string, string>>,
  ): Promise<Fault>;
}

/** What an error body holds, taken apart. */
export interface Fault {
  readonly type: string;
  readonly message: string;
  readonly code: string;
  readonly details: Json;
  /** Each as `body.blobs.0.type: message` with the fix behind it. */
  readonly fields: readonly string[];
}

export function clientOf(key: string): Client {
  const ownHeaders = { Authorization: `Bearer ${key}` };
  const client: Client = {
    key,
    ask: (method, path, body, headers = {}) =>
      ask(method, path, { body, headers: { ...ownHeaders, ...headers } }),
    async call(method, path, body, headers) {
      const reply = await client.ask(method, path, body, headers);
      if (reply.status < 200 || reply.status > 299) {
        throw new Error(
          `${method} ${path} answered ${reply.status}: ${JSON.stringify(reply.body)?.slice(0, 2000)}`,
        );
      }
      return reply.body;
    },
    async refused(status, method, path, body, headers) {
      const reply = await client.ask(method, path, body, headers);
      if (reply.status !== status) {
        throw new Error(
          `${method} ${path} must answer ${status} and answered ${reply.status}: ${JSON.stringify(reply.body)?.slice(0, 2000)}`,
        );
      }
      return faultOf(reply);
    },
  };
  return client;
}

/** Reads the envelope of an error. @throws Error if a member is missing */
export function faultOf(reply: Reply): Fault {
  const { body, status } = reply;
  const details = body?.error?.details;
  if (
    body?.success !== false ||
    body.status !== status ||
    typeof body.error?.message !== 'string' ||
    typeof details?.code !== 'string'
  ) {
    throw new Error(`a ${status} without the error envelope: ${JSON.stringify(body)?.slice(0, 1000)}`);
  }
  const validation: { location: (string | number)[]; message: string; fix?: string }[] =
    details.validation_errors ?? [];
  return {
    type: body.error.type,
    message: body.error.message,
    code: details.code,
    details,
    fields: validation.map(
      ({ location, message, fix }) =>
        `${location.join('.')}: ${message}${fix === undefined ? '' : ` [${fix}]`}`,
    ),
  };
}

/** Makes a key by the bootstrap secret, as the first one of a deployment is made. */
export async function makeKey(body: Record<string, unknown>): Promise<Json> {
  return clientOf(stack.bootstrap_secret).call('POST', '/v1/organizations/api-keys', body);
}

let admin: Promise<Client> | undefined;

/** A client that may do everything; one key for each test file. */
export function adminClient(): Promise<Client> {
  admin ??= makeKey({ name: 'deployed suites', permissions: ['admin'] }).then(({ key }: Json) =>
    clientOf(key as string),
  );
  return admin;
}

/** How long anything may take that is not said to take longer; on a busy machine most waits are a hundredth of it. */
export const patienceMs = 120_000;
const pollMs = 100;

/**
 * Asks again until the probe gives something other than undefined.
 *
 * @throws Error that says what did not happen, with what `describe` last saw
 */
export async function until<T>(
  what: string,
  probe: () => Promise<T | undefined> | T | undefined,
  options: { readonly deadlineMs?: number; readonly describe?: () => unknown } = {},
): Promise<T> {
  const { deadlineMs = patienceMs } = options;
  const end = performance.now() + deadlineMs;
  for (;;) {
    const found = await probe();
    if (found !== undefined) return found;
    if (performance.now() > end) {
      const seen = options.describe
        ? `; last seen: ${JSON.stringify(options.describe())?.slice(0, 1500)}`
        : '';
      throw new Error(`${what} did not happen within ${deadlineMs / 1000} s${seen}`);
    }
    await new Promise((resolve) => setTimeout(resolve, pollMs));
  }
}

export interface Workspace {
  readonly client: Client;
  readonly namespaceId: string;
  readonly namespaceName: string;
  /** `/v1/namespaces/<id>` */
  readonly path: string;
  close(): Promise<void>;
}

/** A namespace of a test file's own; `close` deletes it with everything in it. */
export async function makeWorkspace(name: string, by?: Client): Promise<Workspace> {
  const client = by ?? (await adminClient());
  const namespaceName = `${name}-${Date.now().toString(36)}`;
  const { namespace_id } = await client.call('POST', '/v1/namespaces', { namespace_name: namespaceName });
  const path = `/v1/namespaces/${namespace_id}`;
  return {
    client,
    namespaceId: namespace_id,
    namespaceName,
    path,
    close: async () => void (await client.call('DELETE', path)),
  };
}

/**
 * A zip archive of files, stored without compression.
 *
 * @param files path in the archive to content
 * @see APPNOTE.TXT of PKWARE, sections 4.3.7, 4.3.12 and 4.3.16
 */
export function zip(files: Readonly<Record<string, string | Uint8Array>>): Buffer {
  const parts: Buffer[] = [];
  const directory: Buffer[] = [];
  let offset = 0;
  for (const [path, content] of Object.entries(files)) {
    const name = Buffer.from(path);
    const data = Buffer.from(content as Uint8Array);
    const common = Buffer.alloc(26);
    common.writeUInt16LE(20, 0);
    common.writeUInt16LE(0x0800, 2); // names are UTF-8
    common.writeUInt16LE(0x0021, 8); // 1 January 1980
    common.writeUInt32LE(crc32(data), 10);
    common.writeUInt32LE(data.length, 14);
    common.writeUInt32LE(data.length, 18);
    common.writeUInt16LE(name.length, 22);
    const local = Buffer.concat([Buffer.from('PK\x03\x04', 'latin1'), common, name, data]);
    const rest = Buffer.alloc(14);
    rest.writeUInt32LE(0o100644 * 0x10000, 6);
    rest.writeUInt32LE(offset, 10);
    const madeBy = Buffer.from([20, 3]);
    directory.push(Buffer.concat([Buffer.from('PK\x01\x02', 'latin1'), madeBy, common, rest, name]));
    parts.push(local);
    offset += local.length;
  }
  const list = Buffer.concat(directory);
  const end = Buffer.alloc(22);
  end.write('PK\x05\x06', 'latin1');
  end.writeUInt16LE(directory.length, 8);
  end.writeUInt16LE(directory.length, 10);
  end.writeUInt32LE(list.length, 12);
  end.writeUInt32LE(offset, 16);
  return Buffer.concat([...parts, list, end]);
}

/** The files of a plugin's folder as an archive holds them: under the folder's name, without what Python leaves behind. */
export function pluginFiles(folder: string): Record<string, string> {
  const top = folder.split('/').at(-1)!;
  const found: Record<string, string> = {};
  const walk = (path: string) => {
    for (const name of readdirSync(path).sort()) {
      const inner = join(path, name);
      if (name === '__pycache__' || name.startsWith('.')) continue;
      if (statSync(inner).isDirectory()) walk(inner);
      else found[join(top, relative(folder, inner))] = readFileSync(inner, 'utf8');
    }
  };
  walk(folder);
  return found;
}

export const fixturePlugin = (name: string): string =>
  join(projectFolder, 'test', 'fixtures', 'plugins', name);

/** Asks for an upload, puts the archive and confirms it, whatever the confirm answers. */
export async function uploadPlugin(
  space: Workspace,
  name: string,
  version: string,
  archive: Buffer,
): Promise<Reply> {
  const { client, path } = space;
  const upload = await client.call('POST', `${path}/plugins/uploads`, {
    name,
    version,
    file_size_bytes: archive.length,
  });
  const put = await fetch(upload.presigned_url, {
    method: 'PUT',
    headers: { 'Content-Type': 'application/zip' },
    body: new Uint8Array(archive),
  });
  if (!put.ok) throw new Error(`the presigned upload answered ${put.status}: ${await put.text()}`);
  return client.ask('POST', `${path}/plugins/uploads/${upload.upload_id}/confirm`);
}

/** Uploads and deploys a plugin of `test/fixtures/plugins`. @returns its id, such as `word_embed_1_0_0` */
export function usePlugin(
  space: Workspace,
  name = 'word_embed',
  deploymentType = 'batch_only',
): Promise<string> {
  return deployArchive(space, name, zip(pluginFiles(fixturePlugin(name))), deploymentType);
}

/** Deploys `picky_embed`: `word_embed` that refuses texts with the word "poison". */
export function usePickyPlugin(space: Workspace): Promise<string> {
  const files: Record<string, string> = {};
  const line = '    words = text.lower().split()\n';
  for (const [path, text] of Object.entries(pluginFiles(fixturePlugin('word_embed')))) {
    files[path.replace('word_embed', 'picky_embed')] = text
      .replaceAll('word_embed', 'picky_embed')
      .replace(line, `${line}    if "poison" in words:\n        raise ValueError("will not eat this")\n`);
  }
  return deployArchive(space, 'picky_embed', zip(files), 'batch_only');
}

async function deployArchive(
  space: Workspace,
  name: string,
  archive: Buffer,
  deploymentType: string,
): Promise<string> {
  const reply = await uploadPlugin(space, name, '1.0.0', archive);
  if (reply.status !== 200) throw new Error(`the plugin ${name} was refused: ${JSON.stringify(reply.body)}`);
  const id = reply.body.plugin_id as string;
  await space.client.call('POST', `${space.path}/plugins/${id}/deploy?deployment_type=${deploymentType}`);
  return id;
}

export const wordFeature = 'mixpeek://word_embed@1.0.0/word_embed_v1_embedding';

export interface Setup {
  readonly bucketId: string;
  readonly collectionId: string;
  /** `/v1/namespaces/<id>/buckets/<id>` */
  readonly bucket: string;
  /** `/v1/namespaces/<id>/collections/<id>` */
  readonly collection: string;
}

/** A bucket of texts and a collection that reads it with `word_embed`, which must be deployed. */
export async function makeCollection(
  space: Workspace,
  name: string,
  more: { readonly plugin?: string; readonly collection?: Record<string, unknown> } = {},
): Promise<Setup> {
  const { client, path } = space;
  const { bucket_id } = await client.call('POST', `${path}/buckets`, {
    name,
    bucket_schema: { properties: { text: { type: 'text', required: true } } },
  });
  const { collection_id } = await client.call('POST', `${path}/collections`, {
    name,
    feature_extractors: [{ feature_extractor_name: more.plugin ?? 'word_embed', version: '1.0.0' }],
    source: { type: 'bucket', bucket_ids: [bucket_id] },
    ...more.collection,
  });
  return {
    bucketId: bucket_id,
    collectionId: collection_id,
    bucket: `${path}/buckets/${bucket_id}`,
    collection: `${path}/collections/${collection_id}`,
  };
}

export interface Text {
  readonly text: string;
  readonly metadata?: Readonly<Record<string, unknown>>;
}

/** Puts objects by bulk calls. @returns their ids, in the order of the texts */
export async function putTexts(
  space: Workspace,
  setup: Setup,
  texts: readonly (Text | string)[],
): Promise<string[]> {
  const ids: string[] = [];
  for (let i = 0; i < texts.length; i += 100) {
    const objects = texts.slice(i, i + 100).map((one) => {
      const { text, metadata } = typeof one === 'string' ? { text: one, metadata: undefined } : one;
      return { blobs: [{ property: 'text', type: 'text', data: text }], ...(metadata ? { metadata } : {}) };
    });
    const made = await space.client.call('POST', `${setup.bucket}/objects/batch`, { objects });
    if (made.failed_count > 0)
      throw new Error(`objects were refused: ${JSON.stringify(made.failed).slice(0, 500)}`);
    ids.push(...made.results.map((one: Json) => one.object_id as string));
  }
  return ids;
}

export async function triggerBatch(
  space: Workspace,
  setup: Setup,
  more: Record<string, unknown> = {},
): Promise<Json> {
  return space.client.call('POST', `${setup.bucket}/batches/trigger`, {
    collection_ids: [setup.collectionId],
    ...more,
  });
}

/** Waits until a batch is COMPLETED or FAILED. */
export async function batchEnd(
  space: Workspace,
  setup: Setup,
  batchId: string,
  deadlineMs = patienceMs,
): Promise<Json> {
  let last: Json;
  return until(
    `the end of batch ${batchId}`,
    async () => {
      last = await space.client.call('GET', `${setup.bucket}/batches/${batchId}`);
      return ['COMPLETED', 'FAILED', 'CANCELED'].includes(last.status) ? last : undefined;
    },
    { deadlineMs, describe: () => last },
  );
}

/** Triggers a batch and waits for it. @throws Error if it is not COMPLETED */
export async function runBatch(
  space: Workspace,
  setup: Setup,
  more: Record<string, unknown> = {},
): Promise<Json> {
  const { batch_id } = await triggerBatch(space, setup, more);
  const batch = await batchEnd(space, setup, batch_id);
  if (batch.status !== 'COMPLETED')
    throw new Error(`the batch ${batch_id} is ${batch.status}: ${JSON.stringify(batch).slice(0, 2000)}`);
  return batch;
}

/** Every item of a list by its cursor; `POST <path>/list`. */
export async function listAll(
  space: Workspace,
  path: string,
  body: Record<string, unknown> = {},
  limit = 500,
): Promise<Json[]> {
  const found: Json[] = [];
  let cursor: string | null = null;
  do {
    const page: Json = await space.client.call('POST', `${path}/list`, {
      limit,
      ...body,
      ...(cursor ? { cursor } : {}),
    });
    found.push(...page.results);
    cursor = page.pagination.next_cursor;
  } while (cursor !== null);
  return found;
}

/** The documents of a collection. */
export const listDocuments = (
  space: Workspace,
  setup: Setup,
  body: Record<string, unknown> = {},
): Promise<Json[]> => listAll(space, `${setup.collection}/documents`, body);

/** The definition of a search by text over one feature. */
export const searchStages = (
  featureUri: string = wordFeature,
  parameters: Record<string, unknown> = {},
): Json[] => [
  {
    stage_name: 'vector_search',
    stage_type: 'filter',
    config: {
      stage_id: 'feature_search',
      parameters: { searches: [{ feature_uri: featureUri, query: '{{INPUT.query}}' }], ...parameters },
    },
  },
];
