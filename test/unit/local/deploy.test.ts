// The deploy on a running emulator, with a small app that writes its own assembly: no CDK library, no bundling.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { callAws, callJson, stackResources } from '../../../local/aws-call.ts';
import { deploy } from '../../../local/deploy.ts';
import { startEmulator, stopEmulator } from '../../../local/emulator.ts';

const folder = mkdtempSync(join(tmpdir(), 'granary-deploy-'));
const stateFolder = join(folder, 'state');
const appFolder = join(folder, 'app');
let endpoint: string;

const key = (name: string) => `'${name}'`;
const denied = {
  statusCode: 403,
  responseParameters: { 'gatewayresponse.header.x-shape': key('ours') },
  responseTemplates: { 'application/json': '{"success":false,"message":$context.error.messageString}' },
};
const missing = {
  statusCode: 404,
  responseTemplates: { 'application/json': '{"success":false,"id":"$context.requestId"}' },
};
const mock = { 'x-amazon-apigateway-integration': { type: 'mock' }, responses: {} };
const template = {
  Resources: {
    Table: {
      Type: 'AWS::DynamoDB::Table',
      Properties: {
        BillingMode: 'PAY_PER_REQUEST',
        AttributeDefinitions: [{ AttributeName: 'pk', AttributeType: 'S' }],
        KeySchema: [{ AttributeName: 'pk', KeyType: 'HASH' }],
        TimeToLiveSpecification: { AttributeName: 'expires_at', Enabled: true },
      },
    },
    Api: {
      Type: 'AWS::ApiGateway::RestApi',
      Properties: {
        Name: 'test',
        Body: {
          openapi: '3.0.1',
          info: { title: 'test', version: '1' },
          paths: { '/here': { get: mock } },
          'x-amazon-apigateway-gateway-responses': {
            ACCESS_DENIED: denied,
            MISSING_AUTHENTICATION_TOKEN: missing,
          },
        },
      },
    },
    Deployment: { Type: 'AWS::ApiGateway::Deployment', Properties: { RestApiId: { Ref: 'Api' } } },
    Stage: {
      Type: 'AWS::ApiGateway::Stage',
      Properties: {
        RestApiId: { Ref: 'Api' },
        DeploymentId: { Ref: 'Deployment' },
        StageName: 'api',
      },
    },
  },
  Outputs: { RestApiId: { Value: { Ref: 'Api' } }, TableName: { Value: { Ref: 'Table' } } },
};
const manifest = {
  version: '36.0.0',
  artifacts: {
    'T-all': {
      type: 'aws:cloudformation:stack',
      environment: 'aws://unknown-account/unknown-region',
      properties: { templateFile: 'T-all.template.json', stackName: 'T-all' },
    },
  },
};
const app = `
  import { mkdirSync, writeFileSync } from 'node:fs';
  const out = process.env.CDK_OUTDIR;
  const { stage } = JSON.parse(process.env.CDK_CONTEXT_JSON);
  if (stage !== 'local') throw new Error('unknown stage ' + stage);
  mkdirSync(out, { recursive: true });
  writeFileSync(out + '/manifest.json', ${JSON.stringify(JSON.stringify(manifest))});
  writeFileSync(out + '/T-all.template.json', ${JSON.stringify(JSON.stringify(template))});
`;

beforeAll(async () => {
  mkdirSync(join(appFolder, 'infra'), { recursive: true });
  writeFileSync(join(appFolder, 'cdk.json'), JSON.stringify({ app: 'node infra/app.mjs' }));
  writeFileSync(join(appFolder, 'infra', 'app.mjs'), app);
  ({ endpoint } = await startEmulator({ stateFolder, port: 0 }));
});

afterAll(async () => {
  await stopEmulator(stateFolder, 2000);
  rmSync(folder, { recursive: true, force: true });
});

test('a deploy makes the stacks, fills in what the emulator drops, and is skipped when nothing changed', async () => {
  const steps: string[] = [];
  const onStep = (step: string) => steps.push(step);
  const first = await deploy({ endpoint, stateFolder, appFolder, onStep });
  expect(steps).toEqual([
    'synthesising the stacks',
    'preparing the account',
    'deploying the stacks',
    'filling in what the emulator leaves out',
  ]);
  expect(first).toMatchObject({
    changed: true,
    baseUrl: `${endpoint}/_aws/execute-api/${first.restApiId}/api`,
  });
  expect(first.outputs['T-all']?.RestApiId).toBe(first.restApiId);

  const TableName = first.outputs['T-all']?.TableName as string;
  expect((await stackResources(endpoint, 'T-all')).get('Table')).toBe(TableName);
  expect(await callJson(endpoint, 'dynamodb', 'DynamoDB_20120810.DescribeTimeToLive', { TableName })).toEqual(
    {
      TimeToLiveDescription: { AttributeName: 'expires_at', TimeToLiveStatus: 'ENABLED' },
    },
  );
  const path = `/restapis/${first.restApiId}/gatewayresponses/ACCESS_DENIED`;
  const response = JSON.parse(await callAws({ endpoint, service: 'apigateway', method: 'GET', path }));
  expect(response).toMatchObject({ ...denied, statusCode: '403', defaultResponse: false });
  const unknown = await fetch(`${first.baseUrl}/nowhere`);
  expect([unknown.status, await unknown.json()]).toEqual([404, { success: false, id: expect.any(String) }]);

  steps.length = 0;
  expect(await deploy({ endpoint, stateFolder, appFolder, onStep })).toEqual({ ...first, changed: false });
  expect(steps).toEqual([]);

  writeFileSync(join(appFolder, 'infra', 'settings.json'), '{}');
  expect(await deploy({ endpoint, stateFolder, appFolder, onStep })).toMatchObject({ changed: true });
  expect(steps[0]).toBe('synthesising the stacks');
  expect(steps).not.toContain('preparing the account');
});

test('a step that fails is named with the end of its log', async () => {
  const wrong = deploy({ endpoint, stateFolder, appFolder, stage: 'moon' });
  await expect(wrong).rejects.toThrow(/The synth failed \(exit code 1\)[\s\S]*unknown stage moon/);
  expect(readFileSync(join(stateFolder, 'deploy.log'), 'utf8')).toContain('unknown stage moon');
});

test('what was deployed to an emulator that is gone is deployed again', async () => {
  await deploy({ endpoint, stateFolder, appFolder });
  const file = join(stateFolder, 'deployed.json');
  const note = JSON.parse(readFileSync(file, 'utf8'));
  note.deployment.restApiId = 'gone';
  writeFileSync(file, JSON.stringify(note));
  expect(await deploy({ endpoint, stateFolder, appFolder })).toMatchObject({ changed: true });
});
