// The yardstick: a Lambda that gives back what it gets, behind a gateway with the same paths and the same authorizer.
import { allRoutes } from '../functions/core/resources/contracts.ts';
import { apiStageName } from '../infra/constructs/contract-api.ts';
import { gatewayDocument } from '../infra/constructs/gateway-document.ts';
import { callAws, stackResources } from '../local/aws-call.ts';
import { outputOf } from '../local/bootstrap-key.ts';
import type { Deployment } from '../local/deploy.ts';
import { localRegion } from '../local/emulator.ts';

const stackName = 'granary-bench-echo';
const functionName = 'granary-bench-echo';
const account = '000000000000';
const deadlineMs = 60_000;

/** No package, no parsing: what the gateway and the runtime take is all that is left. */
const code =
  "exports.handler = async (event) => ({ statusCode: 200, headers: { 'Content-Type': 'application/json' }, body: event.body || '{}' });";

const uriOf = (name: string) =>
  `arn:aws:apigateway:${localRegion}:lambda:path/2015-03-31/functions/arn:aws:lambda:${localRegion}:${account}:function:${name}/invocations`;

function templateOf(authorizer: string): Record<string, unknown> {
  const document = gatewayDocument(allRoutes, {
    uris: { api: uriOf(functionName), query: uriOf(functionName) },
    authorizerUri: uriOf(authorizer),
    title: 'Granary bench echo',
  });
  return {
    Resources: {
      Echo: {
        Type: 'AWS::Lambda::Function',
        Properties: {
          FunctionName: functionName,
          Runtime: 'nodejs24.x',
          Handler: 'index.handler',
          Role: `arn:aws:iam::${account}:role/${functionName}`,
          MemorySize: 1024,
          Timeout: 29,
          Code: { ZipFile: code },
        },
      },
      Rest: { Type: 'AWS::ApiGateway::RestApi', Properties: { Name: stackName, Body: document } },
      Deployment: { Type: 'AWS::ApiGateway::Deployment', Properties: { RestApiId: { Ref: 'Rest' } } },
      Stage: {
        Type: 'AWS::ApiGateway::Stage',
        Properties: {
          RestApiId: { Ref: 'Rest' },
          DeploymentId: { Ref: 'Deployment' },
          StageName: apiStageName,
        },
      },
    },
  };
}

/**
 * Makes the yardstick beside a deployment: its gateway has every path of ours, and each answers by the echo.
 *
 * It is one plain stack, since nothing of it is ever deployed to AWS.
 * @returns base URL, so that `<base>/v1/...` answers to the same key
 */
export async function makeEcho(endpoint: string, deployment: Deployment): Promise<string> {
  const cloudformation = (parameters: Record<string, string>) =>
    callAws({
      endpoint,
      service: 'cloudformation',
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
      body: new URLSearchParams({ Version: '2010-05-15', StackName: stackName, ...parameters }).toString(),
    });
  // A template above 51,200 bytes must come from a bucket.
  const bucket = `/${stackName}`;
  await callAws({ endpoint, service: 's3', method: 'PUT', path: bucket });
  const body = JSON.stringify(templateOf(outputOf(deployment, 'AuthorizerFunctionName')));
  await callAws({ endpoint, service: 's3', method: 'PUT', path: `${bucket}/template.json`, body });
  await cloudformation({ Action: 'CreateStack', TemplateURL: `${endpoint}${bucket}/template.json` });
  const end = performance.now() + deadlineMs;
  for (;;) {
    const status = /<StackStatus>([^<]*)</.exec(await cloudformation({ Action: 'DescribeStacks' }))?.[1];
    if (status === 'CREATE_COMPLETE') break;
    if (status !== 'CREATE_IN_PROGRESS' || performance.now() > end)
      throw new Error(`the echo was not made: its stack is ${status}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  const restApiId = (await stackResources(endpoint, stackName)).get('Rest');
  return `${endpoint}/_aws/execute-api/${restApiId}/${apiStageName}`;
}
