// `granary plugin push`: check, upload, confirm and deploy; the same again changes nothing.
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import * as yauzl from 'yauzl';
import type * as z from 'zod';
import type {
  ConfirmedPlugin,
  Deployment,
  Plugin,
  PluginUpload,
} from '../../functions/core/resources/plugins/contract.ts';
import { type Client, fetchBytes, upload } from '../client.ts';
import type { Session } from '../commands/command.ts';
import { CliError } from '../errors.ts';
import { byteSize, type Output } from '../output.ts';
import { awsRuntime, type CheckedPlugin, checkPlugin, findingLines, showWarnings } from './check.ts';
import { findPython } from './python.ts';
import { nameOf, type PythonOptions } from './validate.ts';
import { pluginId } from './wire.ts';
import { count } from './words.ts';

export const bumps = ['patch', 'minor', 'major'] as const;
export const deployments = ['batch_only', 'realtime'] as const;

export interface PushOptions extends PythonOptions {
  readonly deploy?: (typeof deployments)[number];
  readonly bump?: (typeof bumps)[number];
}

interface Remote extends z.output<typeof Plugin> {
  readonly presigned_download_url: string | null;
}

/** A plugin with a name, a version and no fault. */
type SoundPlugin = CheckedPlugin & { readonly name: string; readonly version: string };

const stepsTotal = 4;

/** @throws CliError faulty, mismatch if the version is there with other content, and those of the client */
export async function pushCommand(session: Session, dir: string, options: PushOptions): Promise<void> {
  const { client, output } = session;
  const python = findPython(options.python, session.env);
  const step = (n: number, text: string) => output.step(`[${n}/${stepsTotal}] ${text}`);
  // Known before anything is sent, so that a wrong setting does not show at the last step.
  client.path('plugins');

  step(1, 'checking');
  let plugin = await soundPlugin(client, output, dir, python);
  let remote = await findRemote(client, plugin);
  let difference = await differenceTo(plugin, remote);
  const before = difference === undefined ? undefined : plugin.version;
  if (difference !== undefined) {
    if (options.bump === undefined) throw versionTaken(plugin, difference);
    const version = bumpVersion(plugin, options.bump);
    output.note(`manifest.py: version ${plugin.version} -> ${version}`);
    plugin = await soundPlugin(client, output, dir, python);
    remote = await findRemote(client, plugin);
    difference = await differenceTo(plugin, remote);
    if (difference !== undefined) throw versionTaken(plugin, difference);
  }
  const id = pluginId(plugin);
  const { features } = plugin.manifest!;
  if (remote === undefined) {
    step(2, `sending ${count(plugin.folder.files.length, 'file')}, ${byteSize(plugin.archive.length)}`);
    const place = await client.post<z.output<typeof PluginUpload>>(client.path('plugins', 'uploads'), {
      name: plugin.name,
      version: plugin.version,
      file_size_bytes: plugin.archive.length,
    });
    await upload(place.presigned_url, plugin.archive, 'application/zip');
    step(3, 'having it checked by the service');
    const confirmed = await client.post<z.output<typeof ConfirmedPlugin>>(
      client.path('plugins', 'uploads', place.upload_id, 'confirm'),
      {},
    );
    for (const warning of confirmed.validation_warnings)
      if (!plugin.warnings.some(({ message }) => warning.includes(message))) output.warn(warning);
  } else {
    step(3, `${nameOf(plugin)} is there already, with the same content`);
  }
  step(stepsTotal, 'deploying');
  const deployed = await deploy(client, id, options.deploy, () =>
    step(stepsTotal, 'deploying: its image is being prepared'),
  );
  const uris = features.map((one) => `mixpeek://${plugin.name}@${plugin.version}/${one.feature_name}`);
  const collection = {
    name: `${plugin.name}_vectors`,
    feature_extractors: [{ feature_extractor_name: plugin.name, version: plugin.version }],
    source: { type: 'bucket', bucket_ids: ['BUCKET_ID'] },
  };
  output.result(
    {
      plugin_id: id,
      name: plugin.name,
      version: plugin.version,
      state: remote === undefined ? 'uploaded' : 'unchanged',
      status: deployed.status,
      deployment_type: deployed.deployment_type,
      feature_uris: uris,
      archive: { sha256: plugin.sha256, bytes: plugin.archive.length },
      collection,
    },
    [
      `${nameOf(plugin)} is ${remote === undefined ? 'uploaded' : 'unchanged'} and deployed (${deployed.deployment_type ?? deployed.status}):`,
      ...uris.map((uri) => `  ${uri}`),
      'A collection that uses it, once BUCKET_ID is the id of a bucket:',
      `  curl -H "Authorization: Bearer $GRANARY_API_KEY" -H "Content-Type: application/json" \\`,
      `    ${client.url}${client.path('collections')} \\`,
      `    -d '${JSON.stringify(collection)}'`,
      ...(before === undefined
        ? []
        : [
            `A collection that uses ${before} changes over by:`,
            `  curl -H "Authorization: Bearer $GRANARY_API_KEY" -H "Content-Type: application/json" \\`,
            `    ${client.url}${client.path('collections')}/COLLECTION/upgrade \\`,
            `    -d '${JSON.stringify({ feature_extractor_name: plugin.name, version: plugin.version })}'`,
          ]),
    ],
  );
}

type Deployed = z.output<typeof Deployment>;

const queuedMsMax = 15 * 60_000;

/** Deploys, and again while that goes on in steps, as for an image of its own. @throws CliError failed after 15 minutes */
async function deploy(
  client: Client,
  id: string,
  type: PushOptions['deploy'],
  noteQueued: () => void,
): Promise<Deployed> {
  const path = client.path('plugins', id, 'deploy') + (type === undefined ? '' : `?deployment_type=${type}`);
  const until = performance.now() + queuedMsMax;
  for (let waitMs = 250; ; waitMs = Math.min(5_000, waitMs * 1.5)) {
    const deployed = await client.post<Deployed>(path, {});
    if (deployed.status !== 'queued') return deployed;
    if (performance.now() > until)
      throw new CliError('failed', `${id} is still not ready: ${deployed.message} The same push goes on.`);
    if (waitMs === 250) noteQueued();
    await pause(waitMs);
  }
}

/** @throws CliError faulty with every fault */
async function soundPlugin(
  client: Client,
  output: Output,
  dir: string,
  python: string,
): Promise<SoundPlugin> {
  const plugin = await checkPlugin(dir, python, {
    // What is allowed in this namespace the service knows, and its answer counts.
    allowAll: true,
    ...(client.isLocal ? {} : { runtime: awsRuntime }),
  });
  showWarnings(output, plugin);
  if (plugin.errors.length > 0 || plugin.name === null || plugin.version === null)
    throw new CliError(
      'faulty',
      `${nameOf(plugin)} has ${count(plugin.errors.length, 'fault')}; nothing was sent`,
      {
        faults: plugin.errors.flatMap(findingLines),
      },
    );
  return { ...plugin, name: plugin.name, version: plugin.version };
}

async function findRemote(client: Client, plugin: SoundPlugin): Promise<Remote | undefined> {
  try {
    return await client.get<Remote>(`${client.path('plugins', pluginId(plugin))}?return_presigned_urls=true`);
  } catch (error) {
    if (error instanceof CliError && error.code === 'plugin_not_found') return undefined;
    throw error;
  }
}

/** What differs from the version that is there; undefined if there is none, or it has the same content. */
async function differenceTo(plugin: SoundPlugin, remote: Remote | undefined): Promise<string | undefined> {
  if (remote === undefined || remote.code_hash === plugin.sha256) return undefined;
  if (remote.presigned_download_url === null) return 'its content differs';
  // The same files may have been packed by another program, or by another version of this one.
  const there = await contentsOf(await fetchBytes(remote.presigned_download_url));
  const here = await contentsOf(plugin.archive);
  const words = [
    ...[...here].flatMap(([path, sum]) =>
      there.has(path) ? (there.get(path) === sum ? [] : [`${path} differs`]) : [`${path} is new`],
    ),
    ...[...there.keys()].flatMap((path) => (here.has(path) ? [] : [`${path} is gone`])),
  ];
  if (words.length === 0) return undefined;
  return words.length <= 5
    ? words.join(', ')
    : `${words.slice(0, 5).join(', ')} and ${words.length - 5} more`;
}

/** Path below the plugin's folder to checksum and size, as the archive's directory has them. */
function contentsOf(archive: Buffer): Promise<Map<string, string>> {
  return new Promise((resolve, reject) => {
    yauzl.fromBuffer(archive, {}, (error, zip) => {
      if (error || !zip) return reject(error ?? new Error('not a zip'));
      const found: [string, string][] = [];
      zip.on('entry', ({ fileName, crc32, uncompressedSize }: yauzl.Entry) => {
        if (!/\/$|(^|\/)(__MACOSX|__pycache__)\/|(^|\/)\.DS_Store$|\.pyc$/.test(fileName))
          found.push([fileName, `${crc32} ${uncompressedSize}`]);
      });
      zip.on('error', reject);
      zip.on('end', () => {
        const atRoot = found.some(([path]) => path === 'manifest.py' || path === 'pipeline.py');
        resolve(new Map(found.map(([path, sum]) => [atRoot ? path : path.replace(/^[^/]*\//, ''), sum])));
      });
    });
  });
}

function versionTaken(plugin: SoundPlugin, difference: string): CliError {
  return new CliError(
    'mismatch',
    `${nameOf(plugin)} is there already with other content (${difference}), and a version never changes. ` +
      'Raise "version" in manifest.py, or let this do it: granary plugin push --bump patch',
    { code: 'plugin_version_exists' },
  );
}

/** Writes the next version into manifest.py. @returns it @throws CliError usage if it stands there as no plain text */
function bumpVersion(plugin: SoundPlugin, part: (typeof bumps)[number]): string {
  const place = bumps.indexOf(part);
  const next = plugin.version
    .split('.')
    .map(Number)
    // Patch, minor, major stand from the last to the first.
    .map((value, i) => (i < 2 - place ? value : i === 2 - place ? value + 1 : 0))
    .join('.');
  if (plugin.versionSpan === null)
    throw new CliError(
      'usage',
      `"version" in manifest.py is no plain text, so it cannot be raised here; write version = "${next}"`,
    );
  const file = join(plugin.folder.dir, 'manifest.py');
  const content = readFileSync(file);
  const [begin, end] = plugin.versionSpan;
  const quote = content.subarray(end - 1, end).toString();
  const changed = Buffer.concat([
    content.subarray(0, begin),
    Buffer.from(quote + next + quote),
    content.subarray(end),
  ]);
  writeFileSync(`${file}.new`, changed);
  renameSync(`${file}.new`, file);
  return next;
}
