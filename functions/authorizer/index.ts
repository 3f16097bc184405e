// Checks the API key of a request and tells the gateway whose it is. The gateway keeps the answer 30 s per key.

import middy from '@middy/core';
import type { APIGatewayAuthorizerResult, APIGatewayTokenAuthorizerEvent } from 'aws-lambda';
import { DynamoTable } from '../core/aws/dynamo.ts';
import { secret } from '../core/aws/secrets.ts';
import { systemClock } from '../core/clock.ts';
import { readEnvironment } from '../core/env.ts';
import { toAuthorizerContext } from '../core/http/principal.ts';
import { authenticate } from '../core/resources/keys/service.ts';

const env = readEnvironment('authorizer');
const table = new DynamoTable(env.TABLE_NAME);
const pepper = secret(env.PEPPER_SECRET);
const bootstrap = secret(env.BOOTSTRAP_SECRET);

async function authorize(event: APIGatewayTokenAuthorizerEvent): Promise<APIGatewayAuthorizerResult> {
  const token = /^Bearer +(\S+)$/i.exec(event.authorizationToken ?? '')?.[1];
  const principal =
    token === undefined
      ? undefined
      : await authenticate(table, systemClock, await pepper(), await bootstrap(), token);
  // The gateway turns exactly this message into its 401.
  if (!principal) throw new Error('Unauthorized');
  // The policy covers the whole stage, because the gateway keeps it for every path of this key.
  const [arn, stage] = event.methodArn.split('/') as [string, string];
  return {
    principalId: principal.keyId,
    policyDocument: {
      Version: '2012-10-17',
      Statement: [{ Action: 'execute-api:Invoke', Effect: 'Allow', Resource: `${arn}/${stage}/*` }],
    },
    context: { ...toAuthorizerContext(principal) },
  };
}

export const handler = middy(authorize);
