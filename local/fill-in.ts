// Sets on an emulator what it drops from the templates without a word. On AWS nothing of this runs.
import { readAssembly, resourcesOfType, type SynthesisedStack } from './assembly.ts';
import { callAws, callJson, stackResources } from './aws-call.ts';

interface Target {
  endpoint: string;
  stack: SynthesisedStack;
  /** Physical id of a logical one. */
  physicalId(logicalId: string): string;
}

interface FillIn {
  what: string;
  /** What the emulator does wrong, and what would break. */
  reason: string;
  /** Types of the resources that it concerns. */
  type: string;
  /** Returns whether there was anything to set. */
  apply(target: Target, logicalId: string, properties: Record<string, unknown>): Promise<boolean>;
}

const fillIns: readonly FillIn[] = [
  {
    what: 'time to live',
    reason: 'table properties it does not know are forgotten; expired rows would stay for ever',
    type: 'AWS::DynamoDB::Table',
    async apply({ endpoint, physicalId }, logicalId, properties) {
      return setTimeToLive(endpoint, physicalId(logicalId), properties.TimeToLiveSpecification);
    },
  },
  {
    what: 'time to live',
    reason: 'the same for tables of the newer type',
    type: 'AWS::DynamoDB::GlobalTable',
    async apply({ endpoint, physicalId }, logicalId, properties) {
      return setTimeToLive(endpoint, physicalId(logicalId), properties.TimeToLiveSpecification);
    },
  },
  {
    what: 'gateway responses',
    reason:
      'the import of an API document skips the extension, so that 401, 403, 404 and 405 would wear the ' +
      "gateway's own bodies; they take effect with the next deployment of the stage, which is made here",
    type: 'AWS::ApiGateway::RestApi',
    async apply({ endpoint, stack, physicalId }, logicalId, properties) {
      const responses = gatewayResponses(properties);
      if (responses.length === 0) return false;
      const path = `/restapis/${physicalId(logicalId)}`;
      const headers = { 'content-type': 'application/json' };
      for (const [responseType, response] of responses) {
        await callAws({
          endpoint,
          service: 'apigateway',
          method: 'PUT',
          path: `${path}/gatewayresponses/${responseType}`,
          headers,
          body: JSON.stringify(response),
        });
      }
      for (const [, stage] of resourcesOfType(stack, 'AWS::ApiGateway::Stage')) {
        if (!refersTo(stage.Properties?.RestApiId, logicalId)) continue;
        const body = JSON.stringify({ stageName: stage.Properties?.StageName });
        await callAws({ endpoint, service: 'apigateway', path: `${path}/deployments`, headers, body });
      }
      return true;
    },
  },
];

/**
 * Set everything in the list for every stack of a synthesised app that is deployed at an endpoint.
 *
 * Safe to repeat.
 * @param outDir the synthesised app
 * @returns one line for each thing that was set
 */
export async function fillIn(endpoint: string, outDir: string): Promise<string[]> {
  const done: string[] = [];
  for (const stack of readAssembly(outDir)) {
    const concerned = fillIns.flatMap((entry) =>
      resourcesOfType(stack, entry.type).map(([logicalId, { Properties }]) => ({
        entry,
        logicalId,
        Properties,
      })),
    );
    if (concerned.length === 0) continue;
    const physical = await stackResources(endpoint, stack.stackName);
    const physicalId = (logicalId: string) => {
      const id = physical.get(logicalId);
      if (id === undefined)
        throw new Error(`Stack ${stack.stackName} at ${endpoint} has no resource ${logicalId}`);
      return id;
    };
    for (const { entry, logicalId, Properties = {} } of concerned) {
      if (await entry.apply({ endpoint, stack, physicalId }, logicalId, Properties)) {
        done.push(`${entry.what} of ${physicalId(logicalId)}`);
      }
    }
  }
  return done;
}

async function setTimeToLive(endpoint: string, tableName: string, specification: unknown): Promise<boolean> {
  if (specification === undefined) return false;
  const call = (operation: string, input: object) =>
    callJson(endpoint, 'dynamodb', `DynamoDB_20120810.${operation}`, { TableName: tableName, ...input });
  const now = (await call('DescribeTimeToLive', {})) as {
    TimeToLiveDescription?: { TimeToLiveStatus?: string };
  };
  // Setting what is set already is an error.
  if (now.TimeToLiveDescription?.TimeToLiveStatus === 'ENABLED') return true;
  await call('UpdateTimeToLive', { TimeToLiveSpecification: specification });
  return true;
}

const extension = 'x-amazon-apigateway-gateway-responses';

// In the document they have no names of their own to change: the fields are those of the service's call.
function gatewayResponses(properties: Record<string, unknown>): [string, object][] {
  const body = properties.Body;
  if (typeof body !== 'object' || body === null || !(extension in body)) return [];
  const responses = (body as Record<string, unknown>)[extension];
  if (typeof responses !== 'object' || responses === null) {
    throw new TypeError(`${extension} in the API document must be an object of responses by type`);
  }
  if (/"(Ref|Fn::[A-Za-z]+)":/.test(JSON.stringify(responses))) {
    throw new TypeError(`${extension} in the API document must hold plain text, no references`);
  }
  return Object.entries(responses as Record<string, Record<string, unknown>>).map(([type, response]) => [
    type,
    {
      ...(response.statusCode === undefined ? {} : { statusCode: String(response.statusCode) }),
      responseParameters: response.responseParameters ?? {},
      responseTemplates: response.responseTemplates ?? {},
    },
  ]);
}

function refersTo(value: unknown, logicalId: string): boolean {
  return typeof value === 'object' && value !== null && 'Ref' in value && value.Ref === logicalId;
}
