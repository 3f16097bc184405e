// Calls an emulator's AWS interface for what the deploy needs beside the CDK; nothing is signed, so no SDK.
import { localAccessKey, localRegion } from './emulator.ts';

export interface AwsCall {
  endpoint: string;
  /** Name in the credential scope, by which an emulator finds the service: `dynamodb`, `apigateway`, ... */
  service: string;
  method?: 'GET' | 'POST' | 'PUT' | 'DELETE';
  path?: string;
  headers?: Record<string, string>;
  body?: string;
}

/** An AWS call that was answered with an error status. */
export class AwsCallError extends Error {
  readonly status: number;
  readonly body: string;

  constructor(call: AwsCall, status: number, body: string) {
    super(
      `${call.service} ${call.method ?? 'POST'} ${call.path ?? '/'} answered ${status}: ${body.slice(0, 500)}`,
    );
    this.name = 'AwsCallError';
    this.status = status;
    this.body = body;
  }
}

/**
 * Send one request and return the text of the answer.
 *
 * @throws AwsCallError for a status of 400 or more
 */
export async function callAws(call: AwsCall): Promise<string> {
  const date = new Date().toISOString().slice(0, 10).replaceAll('-', '');
  const scope = `${localAccessKey}/${date}/${localRegion}/${call.service}/aws4_request`;
  const response = await fetch(call.endpoint + (call.path ?? '/'), {
    method: call.method ?? 'POST',
    headers: {
      // Emulators read the scope and do not check the signature.
      authorization: `AWS4-HMAC-SHA256 Credential=${scope}, SignedHeaders=host, Signature=unsigned`,
      ...call.headers,
    },
    ...(call.body === undefined ? {} : { body: call.body }),
    signal: AbortSignal.timeout(30_000),
  });
  const text = await response.text();
  if (!response.ok) throw new AwsCallError(call, response.status, text);
  return text;
}

/** Call an operation of a service with the JSON protocol, such as `DynamoDB_20120810.UpdateTimeToLive`. */
export async function callJson(
  endpoint: string,
  service: string,
  target: string,
  input: unknown,
): Promise<unknown> {
  const headers = { 'content-type': 'application/x-amz-json-1.1', 'x-amz-target': target };
  return JSON.parse(await callAws({ endpoint, service, headers, body: JSON.stringify(input) }));
}

/**
 * Physical ids of a stack's resources.
 *
 * @returns logical id to physical id
 */
export async function stackResources(endpoint: string, stackName: string): Promise<Map<string, string>> {
  const xml = await callAws({
    endpoint,
    service: 'cloudformation',
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
    body: new URLSearchParams({
      Action: 'DescribeStackResources',
      Version: '2010-05-15',
      StackName: stackName,
    }).toString(),
  });
  const resources = new Map<string, string>();
  // Ids hold no markup, so that member by member a search for the two elements is enough.
  for (const member of xml.split('<member>').slice(1)) {
    const logical = /<LogicalResourceId>([^<]*)</.exec(member)?.[1];
    const physical = /<PhysicalResourceId>([^<]*)</.exec(member)?.[1];
    if (logical !== undefined && physical !== undefined) resources.set(logical, physical);
  }
  return resources;
}
