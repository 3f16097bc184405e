// `npm start`: emulator, deployment, first key, the tutorial's nine steps on the sample articles, and a summary.
// The stack keeps running afterwards. `--endpoint URL` uses an emulator or LocalStack that runs there already.
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { firstKey } from './bootstrap-key.ts';
import { makeClient } from './demo/client.ts';
import { bold, dim, heading, red, step } from './demo/progress.ts';
import { startReceiver } from './demo/receiver.ts';
import { readSamples } from './demo/samples.ts';
import { makeNamespace, runDemo } from './demo/steps.ts';
import { checksOf, printSummary } from './demo/summary.ts';
import { deploy } from './deploy.ts';
import { checkEndpoint, projectFolder, startEmulator } from './emulator.ts';

const stateFolder = join(projectFolder, '.local');
const endpointFile = join(stateFolder, 'endpoint.json');

interface Endpoint {
  readonly base_url: string;
  readonly api_key: string;
  readonly namespace_id: string;
}

function readArguments(): { endpoint: string | undefined } {
  try {
    const { values } = parseArgs({
      options: { endpoint: { type: 'string' }, help: { type: 'boolean', short: 'h' } },
    });
    if (values.help) {
      console.log(
        'npm start                       start the emulator, deploy, run the tutorial, keep the stack running\nnpm start -- --endpoint URL     use the emulator or LocalStack at URL instead\nnpm run local:stop              end it; its state is kept\nnpm run local:reset             end it and throw its state away',
      );
      process.exit(0);
    }
    return { endpoint: values.endpoint };
  } catch (error) {
    console.error(`${(error as Error).message}\nUse: npm start [-- --endpoint http://127.0.0.1:4566]`);
    process.exit(2);
  }
}

function readEndpoint(): Endpoint | undefined {
  return existsSync(endpointFile) ? (JSON.parse(readFileSync(endpointFile, 'utf8')) as Endpoint) : undefined;
}

/** The key is a secret, so the file is for its owner alone. */
function writeEndpoint(endpoint: Endpoint): void {
  writeFileSync(endpointFile, `${JSON.stringify(endpoint, null, 2)}\n`, { mode: 0o600 });
  chmodSync(endpointFile, 0o600);
}

async function works(baseUrl: string, apiKey: string): Promise<boolean> {
  const response = await fetch(`${baseUrl}/v1/namespaces?limit=1`, {
    headers: { Authorization: `Bearer ${apiKey}` },
  });
  return response.ok;
}

async function main(): Promise<number> {
  const startedMs = performance.now();
  const { endpoint: given } = readArguments();
  mkdirSync(stateFolder, { recursive: true });
  heading('Granary');

  const endpoint = await step('emulator', async () => {
    if (given !== undefined) {
      const checked = await checkEndpoint(given);
      return [`using ${checked}`, checked];
    }
    const emulator = await startEmulator({ stateFolder, persist: true });
    const words = {
      new: 'fresh',
      kept: 'with the state of the last stop',
      lost: 'fresh: the last run ended without a stop, and its state is lost',
    };
    return [
      `${emulator.endpoint}, ${emulator.started ? words[emulator.state] : 'was running'}`,
      emulator.endpoint,
    ];
  });
  const deployment = await step('deploy', async (shown) => {
    const done = await deploy({ endpoint, stateFolder, onStep: (name) => shown.note(name) });
    return [
      done.changed
        ? `${Object.keys(done.outputs).length} stacks at ${done.baseUrl}`
        : `up to date at ${done.baseUrl}`,
      done,
    ];
  });
  const apiKey = await step('API key', async () => {
    const before = readEndpoint();
    if (before && (await works(deployment.baseUrl, before.api_key)))
      return ['the one from before', before.api_key];
    const made = await firstKey(endpoint, deployment);
    return [`${made.slice(0, 13)}…`, made];
  });
  const client = makeClient(deployment.baseUrl, apiKey);
  const namespaceId = await makeNamespace(client);
  writeEndpoint({ base_url: deployment.baseUrl, api_key: apiKey, namespace_id: namespaceId });

  heading('The tutorial, step by step');
  const receiver = await startReceiver();
  try {
    const result = await runDemo(client, namespaceId, readSamples(), receiver);
    printSummary(result);
    heading('Next');
    console.log(
      `  The stack keeps running; ${dim('.local/endpoint.json')} holds its URL, key and namespace.`,
    );
    console.log(`  export BASE_URL=${deployment.baseUrl} NS_ID=${namespaceId}`);
    console.log(`  export API_KEY=$(sed -n 's/.*"api_key": "\\(.*\\)".*/\\1/p' .local/endpoint.json)`);
    console.log('  curl -s -X POST "$BASE_URL/v1/namespaces/$NS_ID/retrievers/text_search/execute" \\');
    console.log(
      `    -H "Authorization: Bearer $API_KEY" -H "Content-Type: application/json" -d '{"input": {"query": "goalkeeper"}}'`,
    );
    console.log(
      `  ${bold('npm run local:stop')} ends it and keeps its state, ${bold('npm run local:reset')} throws the state away.`,
    );
    const holds = checksOf(result).every((check) => check.holds);
    console.log(
      `\n${holds ? 'Every step did what it should' : red('A step did not do what it should')} ${dim(`(${Math.round((performance.now() - startedMs) / 1000)} s)`)}`,
    );
    return holds ? 0 : 1;
  } finally {
    await receiver.close();
  }
}

process.once('SIGINT', () => {
  console.error(
    '\nInterrupted. What was started keeps running: npm start goes on with it, npm run local:stop ends it.',
  );
  process.exit(130);
});

process.exitCode = await main().catch((error: Error) => {
  console.error(`\n${red('npm start failed:')} ${error.message}`);
  if (process.env.DEBUG) console.error(error.stack);
  else
    console.error(dim(`Logs: .local/emulator.log and .local/deploy.log; DEBUG=1 shows where it happened.`));
  return 1;
});
