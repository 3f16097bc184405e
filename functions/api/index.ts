// The Lambda of everything but search: resources, uploads, triggers, and paths that do not exist.
import { makePorts } from '../core/aws/ports.ts';
import { readEnvironment } from '../core/env.ts';
import { makeDispatcher } from '../core/http/dispatch.ts';
import { httpLambda } from '../core/http/lambda.ts';
import { allRoutes } from '../core/resources/contracts.ts';
import { allHandlers } from '../core/resources/handlers.ts';

export const handler = httpLambda(
  makeDispatcher(allRoutes, allHandlers, makePorts('api', readEnvironment('api'))),
);
