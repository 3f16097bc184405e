// The document that API Gateway gets: each rule that the gateway, or an emulator of it, would break silently.

import { describe, expect, it } from 'vitest';
import * as z from 'zod';
import type { ErrorCode } from '../../functions/core/errors.ts';
import { errorTable, wireTypes } from '../../functions/core/errors.ts';
import type { Route } from '../../functions/core/http/route.ts';
import { clientForm, route } from '../../functions/core/http/route.ts';
import { allRoutes } from '../../functions/core/resources/contracts.ts';
import type { GatewayDocument, Operation } from '../../infra/constructs/gateway-document.ts';
import {
  gatewayDocument,
  gatewayMethods,
  gatewayResponses,
  greedyPath,
  resourceCount,
} from '../../infra/constructs/gateway-document.ts';
import { stage } from './synthesised.ts';

const targets = {
  uris: { api: 'uri-of-api', query: 'uri-of-query' },
  authorizerUri: 'uri-of-authorizer',
  title: 'Test',
};

const get = (path: `/v1/${string}`, more: Partial<Route> = {}): Route =>
  route({
    operation: `get${path}`,
    method: 'GET',
    path,
    tag: 't',
    summary: 's',
    reply: z.object({}),
    ...more,
  }) as Route;

const uriOf = (document: GatewayDocument, path: string, method: string) =>
  operationOf(document, path, method)['x-amazon-apigateway-integration'].uri;

function operationOf(document: GatewayDocument, path: string, method: string): Operation {
  const item = document.paths[path];
  if (!item) throw new Error(`no path ${path} among ${Object.keys(document.paths).join(' ')}`);
  return item[method] as Operation;
}

const health = get('/v1/health', { permission: 'none' });
const bucket = get('/v1/namespaces/{namespace}/buckets/{bucket}');
const execute = get('/v1/namespaces/{namespace}/retrievers/{retriever}/execute', {
  method: 'POST',
  target: 'query',
});
const retriever = get('/v1/namespaces/{namespace}/retrievers/{retriever}');
const small = gatewayDocument([health, bucket, execute, retriever], targets);
const whole = gatewayDocument(allRoutes, targets);

describe('paths', () => {
  it('list every method, OPTIONS and HEAD too, each as a Lambda proxy', () => {
    for (const document of [small, whole]) {
      for (const [path, item] of Object.entries(document.paths)) {
        expect(
          Object.keys(item)
            .filter((key) => key !== 'parameters')
            .sort(),
          path,
        ).toEqual([...gatewayMethods].sort());
        for (const method of gatewayMethods) {
          expect(operationOf(document, path, method)['x-amazon-apigateway-integration']).toMatchObject({
            type: 'aws_proxy',
            httpMethod: 'POST',
          });
        }
      }
    }
  });

  it('send a method without route to api, which answers 405', () => {
    const path = execute.path;
    expect(uriOf(small, path, 'post')).toBe('uri-of-query');
    for (const method of ['get', 'put', 'delete', 'options', 'head'])
      expect(uriOf(small, path, method)).toBe('uri-of-api');
  });

  it('have the canonical form of every route, at the Lambda that the contract names', () => {
    for (const one of allRoutes) {
      expect(uriOf(whole, one.path, one.method.toLowerCase()), one.operation).toBe(`uri-of-${one.target}`);
    }
  });

  it('have the client form of what query answers, and leave that of the rest to the greedy path', () => {
    expect(uriOf(small, '/v1/retrievers/{retriever}/execute', 'post')).toBe('uri-of-query');
    expect(small.paths['/v1/buckets/{bucket}']).toBeUndefined();
    for (const method of gatewayMethods) expect(uriOf(small, greedyPath, method)).toBe('uri-of-api');
    for (const one of allRoutes.filter(({ target }) => target === 'query')) {
      const form = clientForm(one.path);
      if (form !== undefined)
        expect(uriOf(whole, form, one.method.toLowerCase()), one.operation).toBe('uri-of-query');
    }
  });

  it('have methods at every node of the tree, so that no request falls between a node and the greedy path', () => {
    expect(uriOf(small, '/v1/retrievers/{retriever}', 'get')).toBe('uri-of-api');
    expect(uriOf(small, '/v1/retrievers', 'post')).toBe('uri-of-api');
    for (const document of [small, whole]) {
      const paths = Object.keys(document.paths);
      for (const path of paths) {
        const parent = path.slice(0, path.lastIndexOf('/'));
        if (parent !== '/v1') expect(paths, path).toContain(parent);
      }
    }
  });

  it('keep one name for the parameter at each position, and refuse two', () => {
    expect(() => gatewayDocument([get('/v1/a/{one}'), get('/v1/a/{two}/b')], targets)).toThrow(
      /\{one\}.*\{two\}/,
    );
    expect(() => gatewayDocument([get('/v1/a/{one}'), get('/v1/b/{two}')], targets)).not.toThrow();
  });

  it('declare their parameters', () => {
    expect(small.paths[bucket.path]!.parameters).toEqual([
      { name: 'namespace', in: 'path', required: true, schema: { type: 'string' } },
      { name: 'bucket', in: 'path', required: true, schema: { type: 'string' } },
    ]);
  });

  it('need no more nodes than the quota of 300', () => {
    expect(resourceCount(['/v1/a', '/v1/a/{b}', '/v1/c/d'])).toBe(6);
    expect(resourceCount(Object.keys(whole.paths))).toBeLessThanOrEqual(300);
  });
});

describe('keys', () => {
  it('are asked for everywhere but on paths that are open to all', () => {
    for (const method of gatewayMethods) {
      expect(operationOf(small, '/v1/health', method).security).toBeUndefined();
      expect(operationOf(small, bucket.path, method).security).toEqual([{ key: [] }]);
      expect(operationOf(small, greedyPath, method).security).toEqual([{ key: [] }]);
    }
    const open = new Set(
      allRoutes.filter(({ permission }) => permission === 'none').map(({ path }) => path as string),
    );
    for (const path of Object.keys(whole.paths)) {
      expect(operationOf(whole, path, 'get').security === undefined, path).toBe(open.has(path));
    }
  });

  it('leave only health and the document open', () => {
    for (const { path, permission } of allRoutes) {
      if (permission === 'none') expect(['/v1/health', '/v1/openapi.json']).toContain(path);
    }
  });

  it('are checked by a token authorizer that is cached for 30 seconds', () => {
    expect(small.components.securitySchemes.key).toEqual({
      type: 'apiKey',
      name: 'Authorization',
      in: 'header',
      'x-amazon-apigateway-authtype': 'custom',
      'x-amazon-apigateway-authorizer': {
        type: 'token',
        authorizerUri: 'uri-of-authorizer',
        authorizerResultTtlInSeconds: 30,
      },
    });
  });
});

describe('what the gateway itself refuses', () => {
  it.each(Object.entries(gatewayResponses))('%s wears our envelope', (_type, response) => {
    const body = JSON.parse(
      response.responseTemplates['application/json']!.replace('$context.requestId', 'req-1'),
    ) as {
      success: boolean;
      status: number;
      error: {
        message: string;
        type: string;
        details: { code: ErrorCode; request_id: string; retryable: boolean };
      };
    };
    expect(body.success).toBe(false);
    expect(body.status).toBe(response.statusCode);
    const { code, request_id, retryable } = body.error.details;
    expect(request_id).toBe('req-1');
    expect(errorTable[code]).toMatchObject({ type: body.error.type, retryable });
    expect(wireTypes[errorTable[code].type]).toBe(body.status);
    expect(body.error.message.length).toBeGreaterThan(0);
  });

  it('has the statuses of the API: 401 for a bad key, 404 for an unknown path, 413, 415, 429 and 504', () => {
    const status = (type: string) => gatewayResponses[type]!.statusCode;
    expect(['UNAUTHORIZED', 'ACCESS_DENIED'].map(status)).toEqual([401, 401]);
    expect(['MISSING_AUTHENTICATION_TOKEN', 'RESOURCE_NOT_FOUND'].map(status)).toEqual([404, 404]);
    expect(['REQUEST_TOO_LARGE', 'UNSUPPORTED_MEDIA_TYPE', 'THROTTLED'].map(status)).toEqual([413, 415, 429]);
    expect(['AUTHORIZER_FAILURE', 'INTEGRATION_FAILURE', 'INTEGRATION_TIMEOUT'].map(status)).toEqual([
      500, 500, 504,
    ]);
    expect(['DEFAULT_4XX', 'DEFAULT_5XX'].map(status)).toEqual([400, 500]);
    expect(gatewayResponses.THROTTLED!.responseParameters['gatewayresponse.header.Retry-After']).toBe("'1'");
  });

  it('is plain text, so that an emulator that skips the extension can be told the same', () => {
    expect(JSON.stringify(gatewayResponses)).not.toMatch(/"(Ref|Fn::)/);
  });
});

describe('the API in the template', () => {
  const { Properties } = stage('prod').one('AWS::ApiGateway::RestApi', 'Contract');

  it('is one resource made of the document', () => {
    expect(Properties.Body.openapi).toBe('3.0.1');
    expect(Object.keys(Properties.Body.paths).sort()).toEqual(Object.keys(whole.paths).sort());
    expect(stage('prod').ofType('AWS::ApiGateway::Method')).toEqual([]);
  });

  it('is deployed anew when the document changes', () => {
    const [deployment] = stage('prod').ofType('AWS::ApiGateway::Deployment');
    const [other] = stage('dev').ofType('AWS::ApiGateway::Deployment');
    // The title names the stage, so the two documents differ.
    expect(deployment!.id).not.toBe(other!.id);
  });

  it('has a stage that ends the base URL, with throttling, traces and logs without queries', () => {
    const [one] = stage('prod').ofType('AWS::ApiGateway::Stage');
    expect(one!.Properties.StageName).toBe('api');
    expect(one!.Properties.TracingEnabled).toBe(true);
    const [settings] = one!.Properties.MethodSettings;
    expect(settings).toMatchObject({
      HttpMethod: '*',
      ResourcePath: '/*',
      DataTraceEnabled: false,
      LoggingLevel: 'ERROR',
    });
    expect(settings.ThrottlingRateLimit).toBeGreaterThan(0);
    expect(settings.ThrottlingBurstLimit).toBeGreaterThan(0);
    const format = JSON.parse(one!.Properties.AccessLogSetting.Format) as Record<string, string>;
    expect(format.request_id).toBe('$context.requestId');
    expect(Object.values(format).join(' ')).not.toMatch(/querystring|\$context\.path|header/i);
  });

  it('lets the gateway call its three Lambdas and nobody else', () => {
    const permissions = stage('prod')
      .ofType('AWS::Lambda::Permission')
      .filter(({ stack }) => stack === 'api');
    expect(permissions.length).toBe(3);
    for (const permission of permissions) {
      expect(permission.Properties.Principal).toBe('apigateway.amazonaws.com');
      expect(JSON.stringify(permission.Properties.SourceArn)).toContain('ContractRest');
    }
  });
});
