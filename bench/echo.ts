// The yardstick: a Lambda that gives back what it gets, behind a gateway with the same paths and the same authorizer.
import { gatewayDocument } from '../infra/constructs/gateway-document.ts';
import { allRoutes } from '../functions/core/resources/contracts.ts';
import { callAws } from '../local/aws-call.ts';
import { outputOf } from '../local/bootstrap-key.ts';
import type { Deployment } from '../local/deploy.ts';
import { localRegion } from '../local/emulator.ts';

const functionName = 'granary-bench-echo';
const account = '000000000000';
const gatewayStage = 'api';

/** No package, no parsing: what the gateway and the runtime take is all that is left. */
const code = "exports.handler = async (event) => ({ statusCode: 200, headers: { 'Content-Type': 'application/json' }, body: event.body || '{}' });";

const arnOf = (name: string) => `arn:aws:lambda:${localRegion}:${account}:function:${name}`;
const uriOf = (name: string) => `arn:aws:apigateway:${localRegion}:lambda:path/2015-03-31/functions/${arnOf(name)}/invocations`;

async function makeFunction(endpoint: string): Promise<void> {
  const template = {
    Resources: {
      Echo: {
        Type: 'AWS::Lambda::Function',
        Properties: {
          FunctionName: functionName,
          Runtime: 'nodejs24.x',
          Handler: 'index.handler',
          Role: `arn:aws:iam::${account}:role/granary-bench-echo`,
          MemorySize: 1024,
          Timeout: 29,
          Code: { ZipFile: code },
        },
      },
    },
  };
  const cloudformation = (parameters: Record<string, string>) =>
    callAws({
      endpoint,
      service: 'cloudformation',
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
      body: new URLSearchParams({ Version: '2010-05-15', StackName: functionName, ...parameters }).toString(),
    });
  await cloudformation({ Action: 'CreateStack', TemplateBody: JSON.stringify(template), 'Capabilities.member.1': 'CAPABILITY_IAM' });
  const end = performance.now() + 30_000;
  for (;;) {
    const status = /<StackStatus>([^<]*)</.exec(await cloudformation({ Action: 'DescribeStacks' }))?.[1];
    if (status === 'CREATE_COMPLETE') return;
    if (status !== 'CREATE_IN_PROGRESS' || performance.now() > end) throw new Error(`the echo Lambda was not made: its stack is ${status}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/**
 * Makes the yardstick beside a deployment: its gateway has every path of ours, and each answers by the echo.
 *
 * @returns base URL, so that `<base>/v1/...` answers to the same key
 */
export async function makeEcho(endpoint: string, deployment: Deployment): Promise<string> {
  await makeFunction(endpoint);
  const document = gatewayDocument(allRoutes, {
    uris: { api: uriOf(functionName), query: uriOf(functionName) },
    authorizerUri: uriOf(outputOf(deployment, 'AuthorizerFunctionName')),
    title: 'Granary bench echo',
  });
  const headers = { 'content-type': 'application/json' };
  const gateway = (path: string, body: unknown) =>
    callAws({ endpoint, service: 'apigateway', path, headers, body: JSON.stringify(body) });
  const { id } = JSON.parse(await gateway('/restapis?mode=import', document)) as { id: string };
  await gateway(`/restapis/${id}/deployments`, { stageName: gatewayStage });
  return `${endpoint}/_aws/execute-api/${id}/${gatewayStage}`;
}
