// Calling users' URLs: a canary on loopback hears nothing, names are judged by what they resolve to, and no receiver can
// keep us waiting or fill our memory.
import type { LookupAddress } from 'node:dns';
import dns from 'node:dns';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { createServer } from 'node:http';
import { syncBuiltinESMExports } from 'node:module';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import type { Sending } from '../../../functions/core/egress/send.ts';
import { EgressFailure, send } from '../../../functions/core/egress/send.ts';
import { refusedUrls } from './urls.ts';

let server: Server;
let connections = 0;
let respond: (request: IncomingMessage, response: ServerResponse) => void;
const port = () => (server.address() as AddressInfo).port;

beforeEach(async () => {
  connections = 0;
  respond = (_, response) => response.end('here');
  server = createServer((request, response) => respond(request, response));
  server.on('connection', () => connections++);
  await new Promise<void>((done) => server.listen(0, '127.0.0.1', done));
});

afterEach(async () => {
  vi.restoreAllMocks();
  syncBuiltinESMExports();
  server.closeAllConnections();
  await new Promise((done) => server.close(done));
});

const sending = (url: string, more: Partial<Sending> = {}): Sending => ({
  method: 'POST',
  url,
  body: '{}',
  connectTimeoutMs: 2_000,
  totalTimeoutMs: 5_000,
  answerBytesMax: 1_000,
  allowLoopback: false,
  ...more,
});

async function failureOf(attempt: Promise<unknown>): Promise<EgressFailure> {
  try {
    await attempt;
  } catch (error) {
    if (error instanceof EgressFailure) return error;
    throw error;
  }
  throw new Error('the call succeeded');
}

/** Makes every name resolve to these addresses, as often as asked; counts the questions. */
function resolveTo(...addresses: string[]): { questions: string[] } {
  const questions: string[] = [];
  const all: LookupAddress[] = addresses.map((address) => ({
    address,
    family: address.includes(':') ? 6 : 4,
  }));
  vi.spyOn(dns, 'lookup').mockImplementation(((
    name: string,
    options: { all?: boolean },
    done: (...parts: unknown[]) => void,
  ) => {
    questions.push(name);
    if (options.all) done(null, all);
    else done(null, all[0]!.address, all[0]!.family);
  }) as never);
  syncBuiltinESMExports();
  return { questions };
}

describe('the canary', () => {
  it('hears a call that may reach it, so that its silence means something', async () => {
    const received = await send(sending(`http://127.0.0.1:${port()}/`, { allowLoopback: true }));
    expect([received.status, Buffer.from(received.body).toString(), connections]).toEqual([200, 'here', 1]);
  });

  it('hears nothing of the whole corpus', async () => {
    for (const url of refusedUrls)
      expect((await failureOf(send(sending(url)))).reason, url).toBe('refused_target');
    expect(connections).toBe(0);
  });

  it('hears nothing from its own address and port in any spelling', async () => {
    const hosts = [
      '127.0.0.1',
      'localhost',
      '127.1',
      '2130706433',
      '0x7f.1',
      '0177.0.0.1',
      '[::ffff:127.0.0.1]',
      '0.0.0.0',
      '[::1]',
      '127.0.0.1.',
      'LOCALHOST.',
    ];
    for (const scheme of ['http', 'https']) {
      for (const host of hosts) {
        const url = `${scheme}://${host}:${port()}/`;
        expect((await failureOf(send(sending(url)))).reason, url).toBe('refused_target');
      }
    }
    expect(connections).toBe(0);
  });

  it('hears nothing from a redirect: that is an answer, not a way on', async () => {
    const other = createServer((_, response) => response.end());
    let reached = 0;
    other.on('connection', () => reached++);
    await new Promise<void>((done) => other.listen(0, '127.0.0.1', done));
    respond = (_, response) =>
      response
        .writeHead(307, { location: `http://127.0.0.1:${(other.address() as AddressInfo).port}/` })
        .end();
    const received = await send(sending(`http://127.0.0.1:${port()}/`, { allowLoopback: true }));
    expect(received.status).toBe(307);
    expect(reached).toBe(0);
    await new Promise((done) => other.close(done));
  });
});

describe('a name', () => {
  it.each([
    '127.0.0.1',
    '10.1.2.3',
    '172.16.5.4',
    '192.168.1.1',
    '169.254.169.254',
    '100.64.0.1',
    '0.0.0.0',
    '224.0.0.1',
    '255.255.255.255',
    '198.18.0.1',
    '192.0.2.1',
    '::1',
    '::',
    '::ffff:127.0.0.1',
    '::ffff:169.254.169.254',
    'fe80::1',
    'fc00::1',
    'fd00:ec2::254',
    '64:ff9b::7f00:1',
    '2002:7f00:1::',
    '2001:db8::1',
    'ff02::1',
  ])('that resolves to %s is refused without a connection', async (address) => {
    const { questions } = resolveTo(address);
    const failure = await failureOf(send(sending('https://hooks.example.com:8443/')));
    expect(failure.reason).toBe('refused_target');
    expect(failure.message).not.toContain(address);
    expect(questions).toEqual(['hooks.example.com']);
    expect(connections).toBe(0);
  });

  it('that resolves to a public and a private address is refused as a whole', async () => {
    resolveTo('93.184.215.14', '127.0.0.1');
    expect((await failureOf(send(sending('https://hooks.example.com/')))).reason).toBe('refused_target');
    resolveTo('127.0.0.1', '93.184.215.14');
    expect((await failureOf(send(sending('https://hooks.example.com/')))).reason).toBe('refused_target');
  });

  it('is asked for once: the answer that was judged is the one that is called', async () => {
    const { questions } = resolveTo('::ffff:10.0.0.1');
    await failureOf(send(sending('https://rebinding.example.com/')));
    expect(questions).toHaveLength(1);
  });

  it('in the local stage still may not resolve to a private network', async () => {
    resolveTo('192.168.1.1');
    expect(
      (await failureOf(send(sending('https://hooks.example.com/', { allowLoopback: true })))).reason,
    ).toBe('refused_target');
  });

  it('that does not resolve is unreachable, in words', async () => {
    vi.spyOn(dns, 'lookup').mockImplementation(((name: string, _: unknown, done: (error: Error) => void) =>
      done(Object.assign(new Error(`getaddrinfo ENOTFOUND ${name}`), { code: 'ENOTFOUND' }))) as never);
    syncBuiltinESMExports();
    const failure = await failureOf(send(sending('https://nothing-here.example.com/')));
    expect([failure.reason, failure.message]).toEqual([
      'unreachable',
      'nothing-here.example.com: the host name does not resolve',
    ]);
  });
});

describe('a receiver', () => {
  const local = (more: Partial<Sending> = {}) =>
    sending(`http://127.0.0.1:${port()}/hook?x=1`, { allowLoopback: true, ...more });

  it('gets method, path, headers and body as they are', async () => {
    let seen: unknown;
    respond = (request, response) => {
      const parts: Buffer[] = [];
      request.on('data', (part: Buffer) => parts.push(part));
      request.on('end', () => {
        seen = [
          request.method,
          request.url,
          request.headers['x-team'],
          request.headers['content-length'],
          Buffer.concat(parts).toString(),
        ];
        response.writeHead(202, { 'retry-after': '7' }).end();
      });
    };
    const received = await send(local({ headers: { 'X-Team': 'a' }, body: 'naïve' }));
    expect(seen).toEqual(['POST', '/hook?x=1', 'a', '6', 'naïve']);
    expect([received.status, received.headers['retry-after'], received.truncated]).toEqual([202, '7', false]);
  });

  it('that answers more than is kept is cut off there', async () => {
    let closed = false;
    respond = (_, response) => {
      response.on('close', () => (closed = true));
      const more = () => {
        while (!response.destroyed && response.write(Buffer.alloc(64 * 1024, 'x')));
        if (!response.destroyed) response.once('drain', more);
      };
      more();
    };
    const received = await send(local());
    expect([received.body.byteLength, received.truncated]).toEqual([1_000, true]);
    await vi.waitFor(() => expect(closed).toBe(true));
  });

  it('that answers exactly as much as is kept is whole', async () => {
    respond = (_, response) => response.end('x'.repeat(1_000));
    const received = await send(local());
    expect([received.body.byteLength, received.truncated]).toEqual([1_000, false]);
  });

  it('that never answers, never ends, or drips, is given up when the time is over', async () => {
    const timers: NodeJS.Timeout[] = [];
    const ways: (typeof respond)[] = [
      () => {},
      (_, response) => void response.writeHead(200).write('begun'),
      (_, response) => void timers.push(setInterval(() => response.write('.'), 5)),
    ];
    for (const way of ways) {
      respond = way;
      const failure = await failureOf(send(local({ totalTimeoutMs: 60 })));
      expect(failure.reason).toBe('timeout');
      expect(failure.message).toContain('no complete answer');
    }
    for (const timer of timers) clearInterval(timer);
  });

  it('that hangs up is unreachable, in words', async () => {
    respond = (request) => request.socket.destroy();
    const failure = await failureOf(send(local()));
    expect(failure.reason).toBe('unreachable');
    expect(failure.message).toContain('127.0.0.1');
  });

  it('that hangs up in the middle of its answer has not answered', async () => {
    respond = (request, response) => {
      response.writeHead(200, { 'content-length': '100' });
      response.write('half', () => request.socket.destroy());
    };
    expect((await failureOf(send(local()))).reason).toBe('unreachable');
  });

  it('that is not there refuses the connection', async () => {
    const free = createServer();
    await new Promise<void>((done) => free.listen(0, '127.0.0.1', done));
    const { port: closed } = free.address() as AddressInfo;
    await new Promise((done) => free.close(done));
    const failure = await failureOf(send(sending(`http://127.0.0.1:${closed}/`, { allowLoopback: true })));
    expect([failure.reason, failure.message]).toEqual([
      'unreachable',
      `127.0.0.1:${closed}: the connection was refused`,
    ]);
  });
});
