// The middleware around the HTTP Lambdas: headers that every answer carries, whatever the dispatcher said.
import type { APIGatewayProxyEvent, Context } from 'aws-lambda';
import { describe, expect, it } from 'vitest';
import { httpLambda } from '../../../functions/core/http/lambda.ts';

const context = {} as Context;

describe('an HTTP Lambda', () => {
  it("adds headers that keep answers out of caches and browsers' guesses, and changes none of the dispatcher's", async () => {
    const handler = httpLambda(async () => ({
      statusCode: 404,
      headers: { 'X-Request-Id': 'r', 'Cache-Control': 'private' },
      body: '{}',
    }));
    expect(await handler({} as APIGatewayProxyEvent, context)).toEqual({
      statusCode: 404,
      headers: {
        'Cache-Control': 'private',
        'X-Content-Type-Options': 'nosniff',
        'Strict-Transport-Security': expect.stringContaining('max-age='),
        'X-Request-Id': 'r',
      },
      body: '{}',
    });
    const plain = await httpLambda(async () => ({ statusCode: 200, body: '' }))(
      {} as APIGatewayProxyEvent,
      context,
    );
    expect(plain.headers).toMatchObject({ 'Cache-Control': 'no-store' });
  });
});
