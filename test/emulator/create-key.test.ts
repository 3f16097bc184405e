// `npm run keys:create` against the deployed stack, and how it finds a stage in the outputs of a deployment.
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { placeOf, stageOf } from '../../local/create-key.ts';
import { clientOf, output, projectFolder, stack } from './stack.ts';

const script = join(projectFolder, 'local', 'create-key.ts');
const run = (...args: string[]) => spawnSync(process.execPath, [script, ...args], { encoding: 'utf8' });

describe('keys:create', () => {
  it('prints a key that works, with the permissions that were asked for', async () => {
    const secret = output('BootstrapSecretName');
    const { status, stdout, stderr } = run(
      '--secret',
      secret,
      '--url',
      `${stack.base_url}/`,
      '--name',
      'by script',
      '--permissions',
      'read',
    );
    expect({ status, stderr }).toMatchObject({ status: 0 });
    const client = clientOf(stdout.trim());
    expect((await client.ask('GET', '/v1/namespaces')).status).toBe(200);
    expect((await client.ask('POST', '/v1/namespaces', { namespace_name: 'no' })).status).toBe(403);
  });

  it('says what is missing, and where it comes from', () => {
    expect(run('--secret', 'x')).toMatchObject({ status: 1, stderr: expect.stringContaining('--url') });
    expect(run('--outputs', '/nowhere.json')).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('npm run deploy'),
    });
    expect(run('-c', 'colour=red')).toMatchObject({
      status: 1,
      stderr: expect.stringContaining('-c stage=prod'),
    });
  });

  it('finds secret and URL of the stage that is named', () => {
    const of = (stage: string): Record<string, Record<string, string>> => ({
      [`granary-${stage}-data`]: { BootstrapSecretName: `secret-${stage}` },
      [`granary-${stage}-api`]: { ApiUrl: `https://${stage}.example.com/api` },
    });
    expect(placeOf(of('prod'))).toEqual({ secret: 'secret-prod', url: 'https://prod.example.com/api' });
    expect(placeOf({ ...of('prod'), ...of('dev') }, stageOf(['stage=dev']))).toEqual({
      secret: 'secret-dev',
      url: 'https://dev.example.com/api',
    });
    expect(() => placeOf({ ...of('prod'), ...of('dev') })).toThrow(/several stages/);
    expect(() => placeOf(of('prod'), 'dev')).toThrow(/npm run deploy -- -c stage=dev/);
  });
});
