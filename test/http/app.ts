// The whole API in one process over memory stores: requests go through the real dispatcher, replies are checked
// against their contracts.
import { createHash } from 'node:crypto';
import type { APIGatewayProxyEvent } from 'aws-lambda';
import { virtualClock } from '../../functions/core/clock.ts';
import type { NsCtx } from '../../functions/core/context.ts';
import { inNamespace, makeContext } from '../../functions/core/context.ts';
import type { Dispatcher } from '../../functions/core/http/dispatch.ts';
import { makeDispatcher } from '../../functions/core/http/dispatch.ts';
import type { Principal } from '../../functions/core/http/principal.ts';
import { toAuthorizerContext } from '../../functions/core/http/principal.ts';
import { newId } from '../../functions/core/ids.ts';
import type { FunctionCaller, Log, Ports } from '../../functions/core/ports.ts';
import { allRoutes } from '../../functions/core/resources/contracts.ts';
import { allHandlers } from '../../functions/core/resources/handlers.ts';
import { MemoryBlobs, MemoryTable } from '../../functions/core/store/memory.ts';

/** A line that the code under test logged. */
export interface LogLine {
  readonly level: 'info' | 'warn' | 'error';
  readonly message: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

export interface TestPorts extends Ports {
  readonly table: MemoryTable;
  readonly blobs: MemoryBlobs;
  readonly archives: MemoryBlobs;
  readonly index: MemoryBlobs;
  readonly clock: ReturnType<typeof virtualClock>;
  readonly logged: LogLine[];
}

const noFunction = (name: string): FunctionCaller => ({
  call: () => Promise.reject(new Error(`this test gave no ${name}`)),
});

/** Ports over memory, with a virtual clock. `runner` and `validator` answer by the given functions. */
export function makeTestPorts(
  options: {
    readonly runner?: FunctionCaller;
    readonly validator?: FunctionCaller;
    readonly runners?: Ports['runners'];
    readonly imageFunctions?: Ports['imageFunctions'];
    readonly settings?: Partial<Ports['settings']>;
    readonly backends?: Ports['backends'];
  } = {},
): TestPorts {
  const clock = virtualClock();
  const logged: LogLine[] = [];
  const log: Log = {
    info: (message, fields = {}) => void logged.push({ level: 'info', message, fields }),
    warn: (message, fields = {}) => void logged.push({ level: 'warn', message, fields }),
    error: (message, fields = {}) => void logged.push({ level: 'error', message, fields }),
  };
  let counter = 0;
  return {
    table: new MemoryTable(),
    blobs: new MemoryBlobs('blobs', clock),
    archives: new MemoryBlobs('archives', clock),
    index: new MemoryBlobs('index', clock),
    runner: options.runner ?? noFunction('runner'),
    validator: options.validator ?? noFunction('validator'),
    ...(options.runners ? { runners: options.runners } : {}),
    ...(options.imageFunctions ? { imageFunctions: options.imageFunctions } : {}),
    ...(options.backends ? { backends: options.backends } : {}),
    clock,
    // Distinct on every call and the same in every run.
    random: {
      bytes: (count) => {
        counter += 1;
        return createHash('shake256', { outputLength: count }).update(String(counter)).digest();
      },
    },
    log,
    logged,
    settings: {
      stage: 'test',
      pepper: async () => 'a pepper of the tests, 32 bytes or more',
      rateLimits: { metadata: 1e6, data: 1e6, search: 1e6, upload: 1e6, compute: 1e6 },
      allowLoopback: true,
      realtimePlugins: true,
      ...options.settings,
    },
  };
}

export interface Reply {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  /** Parsed JSON; undefined for an empty body. */
  // biome-ignore lint/suspicious/noExplicitAny: tests look into replies of every shape.
  readonly body: any;
}

export interface App {
  readonly ports: TestPorts;
  readonly principal: Principal;
  /** Id of the namespace that `makeApp` made. */
  readonly namespace: string;
  /** A context inside that namespace, to call services directly. */
  readonly ctx: NsCtx;
  /**
   * Sends a request. `{ns}` in the path stands for the app's namespace; a path may hold a query string.
   *
   * @param body an object is sent as JSON, a string as it is
   */
  call(
    method: string,
    path: string,
    body?: unknown,
    headers?: Readonly<Record<string, string>>,
  ): Promise<Reply>;
  /** The same app as another caller sees it; undefined: without a key. */
  as(principal: Principal | undefined): Pick<App, 'call'>;
}

let organizations = 0;

/** An app with one organisation, an admin key and one namespace. Each call makes its own; nothing is shared. */
export async function makeApp(
  options: Parameters<typeof makeTestPorts>[0] & { readonly ports?: TestPorts } = {},
): Promise<App> {
  const ports = options.ports ?? makeTestPorts(options);
  // Rate leases live in the module; a fresh organisation keeps the budgets of two apps apart.
  organizations += 1;
  const principal: Principal = {
    orgId: `org_test${organizations}`,
    keyId: 'testkey1',
    permissions: ['read', 'write', 'delete', 'admin'],
  };
  const dispatcher = makeDispatcher(allRoutes, allHandlers, ports, { checkReplies: true });
  const made = await send(dispatcher, principal, 'POST', '/v1/namespaces', { namespace_name: `main` });
  if (made.status !== 200) throw new Error(`no namespace: ${JSON.stringify(made.body)}`);
  const namespace: string = made.body.namespace_id;
  const as = (who: Principal | undefined) => ({
    call: (method: string, path: string, body?: unknown, headers?: Readonly<Record<string, string>>) =>
      send(dispatcher, who, method, path.replaceAll('{ns}', namespace), body, headers),
  });
  const ctx = inNamespace(
    makeContext(ports, principal, newId('event', ports.clock, ports.random)),
    namespace,
  );
  return { ports, principal, namespace, ctx, as, call: as(principal).call };
}

async function send(
  dispatcher: Dispatcher,
  principal: Principal | undefined,
  method: string,
  path: string,
  body?: unknown,
  headers: Readonly<Record<string, string>> = {},
): Promise<Reply> {
  const url = new URL(path, 'http://api.test');
  const query = Object.fromEntries(url.searchParams);
  const event = {
    httpMethod: method,
    path: url.pathname,
    resource: '',
    headers: { ...(body === undefined ? {} : { 'Content-Type': 'application/json' }), ...headers },
    queryStringParameters: Object.keys(query).length > 0 ? query : null,
    pathParameters: null,
    body: body === undefined ? null : typeof body === 'string' ? body : JSON.stringify(body),
    isBase64Encoded: false,
    requestContext: { authorizer: principal ? toAuthorizerContext(principal) : {} },
  } as unknown as APIGatewayProxyEvent;
  const reply = await dispatcher(event);
  return {
    status: reply.statusCode,
    headers: reply.headers as Record<string, string>,
    body: reply.body === '' ? undefined : JSON.parse(reply.body),
  };
}
