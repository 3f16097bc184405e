// `npm run keys:create -- -c stage=prod`: makes an API key of a deployment on AWS by its bootstrap secret.
//
//   npm run keys:create -- -c stage=prod [--name "first key"] [--permissions admin]
//   npm run keys:create -- --secret NAME_OR_ARN --url https://ID.execute-api.REGION.amazonaws.com/api
//
// `npm run deploy` leaves the outputs of the stacks in .local/outputs-aws.json, where this finds the secret's name and
// the URL; another file is named by `--outputs FILE`. The secret is read with the AWS credentials of this shell
// (`secretsmanager:GetSecretValue`), and the key is printed once and stored nowhere.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { GetSecretValueCommand, SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import { projectFolder } from './emulator.ts';

const usage = `Makes an API key of a deployment by its bootstrap secret.

  npm run keys:create -- -c stage=prod            outputs in .local/outputs-aws.json, as "npm run deploy" leaves them
  npm run keys:create -- --outputs FILE           outputs in another file (cdk deploy --outputs-file FILE)
  npm run keys:create -- --secret NAME --url URL  no outputs: name or ARN of the secret, and the base URL

  --name TEXT             of the key, default "first key"
  --permissions A,B       of read, write, delete, admin; default admin
  --expires TIME          ISO 8601, default never`;

type Outputs = Record<string, Record<string, string>>;

interface Place {
  /** Name or ARN. */
  readonly secret: string;
  readonly url: string;
}

/** The stage of `-c stage=prod` (or `--context`), if one is named. */
export function stageOf(contexts: readonly string[]): string | undefined {
  const found = contexts.map((text) => /^stage=(.+)$/.exec(text)?.[1]).find((text) => text !== undefined);
  const other = contexts.find((text) => !text.startsWith('stage='));
  if (other !== undefined) throw new Error(`-c ${other} is not understood. Right form: -c stage=prod`);
  return found;
}

/**
 * Where a stage is, by the outputs of its stacks, which are named `granary-<stage>-...`.
 *
 * @throws Error that says which output is missing, or that the outputs are of several stages
 */
export function placeOf(outputs: Outputs, stage?: string): Place {
  const stages = new Set(Object.keys(outputs).map((name) => name.split('-').slice(1, -1).join('-')));
  if (stage === undefined && stages.size > 1) {
    throw new Error(
      `The outputs are of several stages (${[...stages].join(', ')}). Say which: -c stage=${[...stages][0]}`,
    );
  }
  const [chosen] = stage === undefined ? [...stages] : [stage];
  const value = (stack: string, name: string): string => {
    const found = outputs[`granary-${chosen}-${stack}`]?.[name];
    if (found === undefined) {
      throw new Error(
        `The outputs have no ${name} of the stack granary-${chosen}-${stack}; they name ${Object.keys(outputs).join(', ') || 'no stack'}. Deploy it first: npm run deploy -- -c stage=${chosen}`,
      );
    }
    return found;
  };
  return { secret: value('data', 'BootstrapSecretName'), url: value('api', 'ApiUrl') };
}

function readOutputs(file: string): Outputs {
  if (!existsSync(file)) {
    throw new Error(
      `${file} does not exist. "npm run deploy -- -c stage=prod" writes it; otherwise name the secret and the URL: --secret NAME --url URL`,
    );
  }
  return JSON.parse(readFileSync(file, 'utf8')) as Outputs;
}

/** An ARN says which region it is in; a name is looked for in the region of this shell. */
function regionOf(secret: string): { region?: string } {
  const region = /^arn:[^:]+:secretsmanager:([^:]+):/.exec(secret)?.[1];
  return region === undefined ? {} : { region };
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      context: { type: 'string', short: 'c', multiple: true, default: [] },
      outputs: { type: 'string' },
      secret: { type: 'string' },
      url: { type: 'string' },
      name: { type: 'string', default: 'first key' },
      permissions: { type: 'string', default: 'admin' },
      expires: { type: 'string' },
      help: { type: 'boolean', short: 'h' },
    },
  });
  if (values.help) return console.log(usage);
  if ((values.secret === undefined) !== (values.url === undefined))
    throw new Error('--secret and --url belong together: name both, or neither');
  const stage = stageOf(values.context);
  const place =
    values.secret !== undefined && values.url !== undefined
      ? { secret: values.secret, url: values.url }
      : placeOf(readOutputs(values.outputs ?? join(projectFolder, '.local', 'outputs-aws.json')), stage);

  const secrets = new SecretsManagerClient(regionOf(place.secret));
  const { SecretString } = await secrets.send(new GetSecretValueCommand({ SecretId: place.secret }));
  if (!SecretString) throw new Error(`the secret ${place.secret} is empty`);
  const response = await fetch(`${place.url.replace(/\/+$/, '')}/v1/organizations/api-keys`, {
    method: 'POST',
    headers: { Authorization: `Bearer ${SecretString}`, 'Content-Type': 'application/json' },
    body: JSON.stringify({
      name: values.name,
      permissions: values.permissions.split(','),
      ...(values.expires === undefined ? {} : { expires_at: values.expires }),
    }),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`${place.url} answered ${response.status}: ${text}`);
  const { key, key_id } = JSON.parse(text) as { key: string; key_id: string };
  // The key alone on standard output, so that it can be put into a variable or a secret store.
  console.error(`${key_id} for ${place.url}; it is shown this once:`);
  console.log(key);
}

if (import.meta.main) {
  await main().catch((error: Error) => {
    console.error(error.message);
    process.exitCode = 1;
  });
}
