// The middleware around both HTTP Lambdas: the onion is small, because dispatch itself owns the envelope.
import middy from '@middy/core';
import type { APIGatewayProxyEvent, APIGatewayProxyResult } from 'aws-lambda';
import type { Dispatcher } from './dispatch.ts';

/** Headers that every answer of ours carries. */
const securityHeaders = {
  'Cache-Control': 'no-store',
  'X-Content-Type-Options': 'nosniff',
  'Strict-Transport-Security': 'max-age=63072000; includeSubDomains',
};

/** @returns a Lambda handler that answers gateway proxy events by the dispatcher. */
export function httpLambda(dispatch: Dispatcher) {
  return middy<APIGatewayProxyEvent, APIGatewayProxyResult>()
    .after((request) => {
      if (request.response) request.response.headers = { ...securityHeaders, ...request.response.headers };
    })
    .handler((event) => dispatch(event));
}
