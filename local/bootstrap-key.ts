// The first API key of a deployment: the generated bootstrap secret may make keys, and nothing else.
import { GetSecretValueCommand, SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import type { Deployment } from './deploy.ts';
import { localAccessKey, localRegion } from './emulator.ts';

/** Finds an output by its name in any of the stacks. */
export function outputOf(deployment: Pick<Deployment, 'outputs'>, name: string): string {
  for (const outputs of Object.values(deployment.outputs)) {
    if (outputs[name] !== undefined) return outputs[name];
  }
  throw new Error(
    `no stack has the output ${name}; got ${Object.values(deployment.outputs)
      .flatMap((o) => Object.keys(o))
      .join(', ')}`,
  );
}

/** The bootstrap secret of a deployment at an emulator. */
export async function bootstrapSecret(
  endpoint: string,
  deployment: Pick<Deployment, 'outputs'>,
): Promise<string> {
  const secrets = new SecretsManagerClient({
    endpoint,
    region: localRegion,
    credentials: { accessKeyId: localAccessKey, secretAccessKey: 'test' },
  });
  const { SecretString } = await secrets.send(
    new GetSecretValueCommand({ SecretId: outputOf(deployment, 'BootstrapSecretName') }),
  );
  if (!SecretString) throw new Error('the bootstrap secret is empty');
  return SecretString;
}

/** Makes an API key with every permission; the answer is the only place where it is shown. */
export async function firstKey(endpoint: string, deployment: Deployment): Promise<string> {
  const secret = await bootstrapSecret(endpoint, deployment);
  const response = await fetch(`${deployment.baseUrl}/v1/organizations/api-keys`, {
    method: 'POST',
    headers: { Authorization: `Bearer ${secret}`, 'Content-Type': 'application/json' },
    body: JSON.stringify({ name: 'first key', permissions: ['admin'] }),
  });
  const text = await response.text();
  if (!response.ok) throw new Error(`no API key could be made: ${response.status} ${text}`);
  return (JSON.parse(text) as { key: string }).key;
}
