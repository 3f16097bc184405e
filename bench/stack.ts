// A deployment to measure: an emulator of its own, the app, a key, a namespace with the sample plugin, and the yardstick.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { firstKey } from '../local/bootstrap-key.ts';
import type { Client, Json } from '../local/demo/client.ts';
import { makeClient } from '../local/demo/client.ts';
import type { Deployment } from '../local/deploy.ts';
import { deploy } from '../local/deploy.ts';
import type { Emulator } from '../local/emulator.ts';
import { projectFolder, projectPython, startEmulator, stopEmulator } from '../local/emulator.ts';
import { makeEcho } from './echo.ts';

export const plugin = { name: 'ngram_embed', version: '1.0.0', id: 'ngram_embed_1_0_0' } as const;
export const pluginFolder: string = join(projectFolder, 'examples', plugin.name);
export const featureUri = `mixpeek://${plugin.name}@${plugin.version}/${plugin.name}_v1_embedding`;

/** A plugin as the API names it, and where its files are: `<folder>/manifest.py` and so on. */
export interface BenchPlugin {
  readonly name: string;
  readonly version: string;
  readonly id: string;
  readonly folder: string;
}

/** An emulator of its own with the app deployed and a key. */
export interface BenchDeployment {
  readonly emulator: Emulator;
  readonly deployment: Deployment;
  /** From the synth to the filled-in stacks, milliseconds. */
  readonly deployMs: number;
  readonly client: Client;
  readonly apiKey: string;
  /** For temporary files; gone after `close`. */
  readonly folder: string;
  /** Ends the emulator and removes everything that was written; safe to repeat. */
  close(): Promise<void>;
}

export interface BenchStack extends BenchDeployment {
  /** Base URL of the echo Lambda's gateway. */
  readonly echoUrl: string;
  /** `/v1/namespaces/<id>`, with the plugin deployed. */
  readonly namespace: string;
}

/** Packs a plugin, uploads and deploys it in a namespace. */
export async function installPlugin(
  { client, folder }: BenchDeployment,
  namespace: string,
  { name, version, id, folder: source }: BenchPlugin,
): Promise<void> {
  const file = join(folder, `${name}.zip`);
  execFileSync(projectPython, ['-m', 'zipfile', '-c', file, source]);
  const upload: Json = await client.call('POST', `${namespace}/plugins/uploads`, { name, version });
  const put = await fetch(upload.presigned_url, {
    method: 'PUT',
    headers: { 'Content-Type': 'application/zip' },
    body: new Uint8Array(readFileSync(file)),
  });
  if (!put.ok) throw new Error(`the upload of ${name} was refused: ${put.status} ${await put.text()}`);
  await client.call('POST', `${namespace}/plugins/uploads/${upload.upload_id}/confirm`);
  await client.call('POST', `${namespace}/plugins/${id}/deploy`, { deployment_type: 'batch_only' });
}

/** @param say gets a line for each thing that takes a while */
export async function makeDeployment(say: (line: string) => void): Promise<BenchDeployment> {
  const stateFolder = mkdtempSync(join(tmpdir(), 'granary-bench-'));
  const close = async () => {
    await stopEmulator(stateFolder);
    rmSync(stateFolder, { recursive: true, force: true });
  };
  try {
    say('starting an emulator of its own');
    const emulator = await startEmulator({ stateFolder, port: 0, leash: true });
    const begin = performance.now();
    const deployment = await deploy({ endpoint: emulator.endpoint, stateFolder, onStep: say });
    const deployMs = performance.now() - begin;
    const apiKey = await firstKey(emulator.endpoint, deployment);
    const client = makeClient(deployment.baseUrl, apiKey);
    return { emulator, deployment, deployMs, client, apiKey, folder: stateFolder, close };
  } catch (error) {
    await close();
    throw error;
  }
}

/** @param say gets a line for each thing that takes a while */
export async function makeStack(say: (line: string) => void): Promise<BenchStack> {
  const made = await makeDeployment(say);
  try {
    const { client, deployment, emulator } = made;
    say('making the echo Lambda and its gateway');
    const echoUrl = await makeEcho(emulator.endpoint, deployment);
    const { namespace_id }: Json = await client.call('POST', '/v1/namespaces', { namespace_name: 'bench' });
    const namespace = `/v1/namespaces/${namespace_id}`;
    await installPlugin(made, namespace, { ...plugin, folder: pluginFolder });
    return { ...made, echoUrl, namespace };
  } catch (error) {
    await made.close();
    throw error;
  }
}
