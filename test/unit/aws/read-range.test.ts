// Ranges of objects go from the socket to their place: in parts, of one version, again when a connection breaks, and
// with an error that says what happened when it does not get better.
import { once } from 'node:events';
import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { type AddressInfo, createServer as createSocketServer, type Server, type Socket } from 'node:net';
import { getCACertificates, setDefaultCACertificates } from 'node:tls';
import { S3Client } from '@aws-sdk/client-s3';
import { afterEach, describe, expect, it } from 'vitest';
import type { RangeSocketsOptions } from '../../../functions/core/aws/range-sockets.ts';
import { S3Blobs } from '../../../functions/core/aws/s3.ts';
import { BlobConflict, BlobMissing, BlobTooShort } from '../../../functions/core/store/blobs.ts';
import { certificate, certificateKey } from '../../fixtures/certificate.ts';

const object = new Uint8Array(
  Uint32Array.from({ length: 5 << 20 }, (_, i) => Math.imul(i + 1, 2_654_435_761)).buffer,
);

/** A request for a range, both ends included, and how many there were for the same one before. */
interface Asked {
  readonly first: number;
  readonly last: number;
  readonly again: number;
}
type Answer = (asked: Asked, response: ServerResponse, request: IncomingMessage) => void;

const headersOf = ({ first, last }: Asked, bytes = object.length) => ({
  ETag: '"one"',
  'Content-Length': last - first + 1,
  'Content-Range': `bytes ${first}-${last}/${bytes}`,
});
const bodyOf = ({ first, last }: Asked) => object.subarray(first, last + 1);
const give: Answer = (asked, response) => {
  response.writeHead(206, headersOf(asked));
  response.end(bodyOf(asked));
};
/** Half of the body, then what `then` does to the connection. */
const giveHalf = (asked: Asked, response: ServerResponse, then: (socket: Socket) => void) => {
  response.writeHead(206, headersOf(asked));
  const half = bodyOf(asked).subarray(0, (asked.last - asked.first + 1) >> 1);
  response.write(half, () => then(response.socket!));
};
const giveError = (response: ServerResponse, status: number, code: string) => {
  response.writeHead(status, { 'Content-Type': 'application/xml' });
  response.write(`<?xml version="1.0" encoding="UTF-8"?><Error><Code>${code}</Code>`);
  response.end('<Message>why</Message></Error>');
};

const servers: { readonly server: Server; readonly sockets: Set<Socket> }[] = [];
afterEach(async () => {
  for (const { server, sockets } of servers.splice(0)) {
    for (const socket of sockets) socket.destroy();
    server.close();
    await once(server, 'close');
  }
});

async function listen(server: Server, scheme: 'http' | 'https', options: RangeSocketsOptions) {
  const sockets = new Set<Socket>();
  const seen = { connections: 0, mostAtOnce: 0 };
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    seen.connections += 1;
    seen.mostAtOnce = Math.max(seen.mostAtOnce, sockets.size);
    // What clients do to connections is their right.
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
  });
  servers.push({ server, sockets });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const client = new S3Client({
    endpoint: `${scheme}://127.0.0.1:${(server.address() as AddressInfo).port}`,
    region: 'eu-west-1',
    forcePathStyle: true,
    credentials: { accessKeyId: 'AKIDEXAMPLE', secretAccessKey: 'secret' },
  });
  return { blobs: new S3Blobs('bucket', client, options), sockets, seen };
}

/** A bucket that answers as told. */
async function serve(answer: Answer, options: RangeSocketsOptions & { readonly tls?: boolean } = {}) {
  const asked: Asked[] = [];
  const listener: RequestListener = (request, response) => {
    const [, first, last] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? [];
    const again = asked.filter((one) => one.first === Number(first)).length;
    const one = { first: Number(first), last: Number(last), again };
    asked.push(one);
    answer(one, response, request);
  };
  const server = options.tls
    ? createTlsServer({ key: certificateKey, cert: certificate }, listener)
    : createServer(listener);
  return { ...(await listen(server, options.tls ? 'https' : 'http', options)), asked };
}

/** A server that sends these bytes as they are, one write each, to whatever it is asked: the same to each connection. */
async function serveBytes(writes: readonly (string | Uint8Array)[], options: RangeSocketsOptions = {}) {
  return serveScripts([writes], options);
}

/** The same with something else to the first connection, to the second and so on; the last for all further ones. */
async function serveScripts(
  scripts: readonly (readonly (string | Uint8Array)[])[],
  options: RangeSocketsOptions = {},
) {
  let connections = 0;
  const server = createSocketServer({ noDelay: true }, (socket) => {
    const script = scripts[Math.min(connections++, scripts.length - 1)]!;
    socket.once('data', async () => {
      for (const part of script) await new Promise((written) => socket.write(part, written));
    });
  });
  return listen(server, 'http', options);
}

/** Reads, and compares with the object. */
async function readsRight(blobs: S3Blobs, offset: number, length: number): Promise<boolean> {
  const memory = new Uint8Array(new ArrayBuffer(length + 128));
  await blobs.readInto('k', offset, memory.subarray(64, 64 + length));
  const same = Buffer.compare(memory.subarray(64, 64 + length), object.subarray(offset, offset + length));
  return same === 0 && memory[63] === 0 && memory[64 + length] === 0;
}

describe('a range', () => {
  it('that is long comes in parts of 8 MB at most, each byte once, signed', async () => {
    const { blobs, asked } = await serve((one, response, request) => {
      expect(request.headers.authorization).toMatch(/^AWS4-HMAC-SHA256 .*SignedHeaders=[^,]*host[^,]*range/);
      expect(request.url).toMatch(/^\/bucket\/k\?x-id=GetObject$/);
      give(one, response, request);
    });
    expect(await readsRight(blobs, 1000, 20_000_000)).toBe(true);
    expect(asked.map(({ first, last }) => [first, last]).sort(([a], [b]) => a! - b!)).toEqual([
      [1000, 6_667_665],
      [6_667_666, 13_334_332],
      [13_334_333, 20_000_999],
    ]);
  });

  it('that is short comes by one request, and the next one by the same connection', async () => {
    const { blobs, asked, seen } = await serve(give);
    for (let i = 0; i < 5; i++) expect(await readsRight(blobs, i * 70_000, 70_000)).toBe(true);
    expect([asked.length, seen.connections]).toEqual([5, 1]);
  });

  it('does not wait for a connection that the server ends: it opens another', async () => {
    const { blobs, seen } = await serve((one, response, request) => {
      response.setHeader('Connection', 'close');
      give(one, response, request);
    });
    for (let i = 0; i < 3; i++) expect(await readsRight(blobs, i, 1000)).toBe(true);
    expect(seen.connections).toBe(3);
  });

  it('survives that the server left a connection while it was idle', async () => {
    const { blobs, sockets, seen } = await serve(give);
    expect(await readsRight(blobs, 0, 1000)).toBe(true);
    for (const socket of sockets) socket.destroy();
    expect(await readsRight(blobs, 0, 1000)).toBe(true);
    expect(seen.connections).toBe(2);
  });

  it('does not use a connection again that was idle for too long', async () => {
    const { blobs, seen } = await serve(give, { idleMs: 0 });
    for (let i = 0; i < 3; i++) expect(await readsRight(blobs, i, 1000)).toBe(true);
    expect(seen.connections).toBe(3);
  });

  it('waits for its turn where connections are limited', async () => {
    const { blobs, seen } = await serve(give, { connectionsMax: 2 });
    const reads = Array.from({ length: 12 }, (_, i) => readsRight(blobs, i * 1000, 100_000));
    expect(await Promise.all(reads)).not.toContain(false);
    expect(seen.mostAtOnce).toBe(2);
  });
});

describe('a connection that breaks', () => {
  it('in the middle of a part costs this part a second request and no other part anything', async () => {
    const { blobs, asked } = await serve((one, response, request) => {
      if (one.first !== 0 || one.again > 0) return give(one, response, request);
      giveHalf(one, response, (socket) => socket.resetAndDestroy());
    });
    expect(await readsRight(blobs, 0, 20_000_000)).toBe(true);
    expect(asked.filter(({ first }) => first === 0)).toHaveLength(2);
    expect(asked).toHaveLength(4);
  });

  it('in good order but too early is broken all the same', async () => {
    const { blobs, asked } = await serve((one, response, request) => {
      if (one.again > 0) return give(one, response, request);
      giveHalf(one, response, (socket) => socket.end());
    });
    expect(await readsRight(blobs, 0, 100_000)).toBe(true);
    expect(asked).toHaveLength(2);
  });

  it('by falling silent is given up and tried again', async () => {
    const { blobs, asked } = await serve(
      (one, response, request) => {
        if (one.again > 0) return give(one, response, request);
        giveHalf(one, response, () => {});
      },
      { stallTimeoutMs: 30 },
    );
    expect(await readsRight(blobs, 0, 100_000)).toBe(true);
    expect(asked).toHaveLength(2);
  });

  it.each([
    ['breaks', (socket: Socket) => void socket.resetAndDestroy()],
    ['falls silent', () => {}],
  ])('and always %s is an outage; nothing writes to the memory afterwards', async (_, then) => {
    const { blobs, sockets } = await serve(
      (one, response, request) => {
        if (one.first > 0) return give(one, response, request);
        giveHalf(one, response, then);
      },
      { stallTimeoutMs: 30 },
    );
    const target = new Uint8Array(20_000_000);
    await expect(blobs.readInto('k', 0, target)).rejects.toMatchObject({ code: 'storage_unavailable' });
    target.fill(0xee);
    await Promise.all([...sockets].map((socket) => socket.destroyed || once(socket.destroy(), 'close')));
    expect(target.every((byte) => byte === 0xee)).toBe(true);
  });

  it('before it is one, or that nobody accepts, is an outage', async () => {
    const silent = await serveBytes([], { stallTimeoutMs: 30 });
    await expect(silent.blobs.readInto('k', 0, new Uint8Array(9))).rejects.toMatchObject({
      code: 'storage_unavailable',
    });
    const { server } = servers.at(-1)!;
    for (const socket of silent.sockets) socket.destroy();
    server.close();
    await once(server, 'close');
    servers.pop();
    await expect(silent.blobs.readInto('k', 0, new Uint8Array(9))).rejects.toMatchObject({
      code: 'storage_unavailable',
    });
  });
});

describe('an answer', () => {
  it('of another version of the object than the other parts is a conflict', async () => {
    const { blobs } = await serve((one, response) => {
      response.writeHead(206, { ...headersOf(one), ETag: one.first === 0 ? '"one"' : '"two"' });
      response.end(bodyOf(one));
    });
    await expect(blobs.readInto('k', 0, new Uint8Array(20_000_000))).rejects.toBeInstanceOf(BlobConflict);
  });

  it('that is an error ends the other parts too, which may be silent for long', async () => {
    const { blobs } = await serve((one, response) => {
      if (one.first > 0) giveHalf(one, response, () => {});
      else giveError(response, 404, 'NoSuchKey');
    });
    const target = new Uint8Array(20_000_000);
    await expect(blobs.readInto('k', 0, target)).rejects.toBeInstanceOf(BlobMissing);
  });

  it('that says busy is asked for again', async () => {
    const { blobs, asked } = await serve((one, response, request) => {
      if (asked.length > 2) return give(one, response, request);
      giveError(response, 503, 'SlowDown');
    });
    expect(await readsRight(blobs, 0, 1000)).toBe(true);
  });

  it.each([
    [404, 'NoSuchKey', { name: 'BlobMissing' }],
    [416, 'InvalidRange', { name: 'BlobTooShort' }],
    [403, 'AccessDenied', { code: 'internal_error' }],
    [503, 'SlowDown', { code: 'storage_throttled' }],
  ])('%i %s gives the error that says so', async (status, code, expected) => {
    const { blobs } = await serve((_one, response) => giveError(response, status, code));
    await expect(blobs.readInto('k', 0, new Uint8Array(20_000_000))).rejects.toMatchObject(expected);
  });

  it('that is shorter since the object ends says how long the object is', async () => {
    const { blobs } = await serve((one, response) => {
      response.writeHead(206, headersOf({ ...one, last: 9 }, 10));
      response.end(bodyOf({ ...one, last: 9 }));
    });
    const refused = blobs.readInto('ns/k', 5, new Uint8Array(6));
    await expect(refused).rejects.toBeInstanceOf(BlobTooShort);
    await expect(refused).rejects.toThrow(/ns\/k.*5 to 10.*10/);
  });

  it('of unknown length is read too, and refused when it is not as long as asked for', async () => {
    const { blobs } = await serve((one, response) => {
      const { 'Content-Length': _, ...headers } = headersOf(one);
      response.writeHead(206, headers);
      response.end(bodyOf({ ...one, last: one.last + Math.sign(one.first - 10) }));
    });
    expect(await readsRight(blobs, 10, 1000)).toBe(true);
    for (const offset of [9, 11]) {
      await expect(blobs.readInto('k', offset, new Uint8Array(1000))).rejects.toMatchObject({
        code: 'internal_error',
      });
    }
  });

  it('with the whole object, or another range, instead of the one asked for is refused', async () => {
    const whole = await serve((_one, response) => {
      response.writeHead(200, { ETag: '"one"', 'Content-Length': object.length });
      response.end(object);
    });
    const other = await serve((one, response, request) => {
      give({ ...one, first: one.first + 1, last: one.last + 1 }, response, request);
    });
    for (const { blobs } of [whole, other]) {
      const target = new Uint8Array(1000);
      await expect(blobs.readInto('k', 0, target)).rejects.toMatchObject({ code: 'internal_error' });
      expect(target.every((byte) => byte === 0)).toBe(true);
    }
  });

  it('without an ETag could be of any version, and is a conflict', async () => {
    const { blobs } = await serve((one, response) => {
      const { ETag: _, ...headers } = headersOf(one);
      response.writeHead(206, headers);
      response.end(bodyOf(one));
    });
    await expect(blobs.readInto('k', 0, new Uint8Array(10))).rejects.toBeInstanceOf(BlobConflict);
  });
});

describe('an answer beside which something else goes on', () => {
  it('may carry a checksum of its body, which the caller has a better one than', async () => {
    const { blobs } = await serve((one, response) => {
      response.writeHead(206, { ...headersOf(one), 'x-amz-checksum-crc32': 'q83vEg==' });
      response.end(bodyOf(one));
    });
    expect(await readsRight(blobs, 0, 100_000)).toBe(true);
  });

  it('is not taken for silent since this very process was busy', async () => {
    const { blobs, asked } = await serve(
      (one, response) => {
        response.writeHead(206, headersOf(one));
        response.write(bodyOf(one).subarray(0, 1000), () =>
          setImmediate(() => {
            response.end(bodyOf(one).subarray(1000), () => {
              // The rest is on its way and nobody can read it for three times as long as patience lasts.
              Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 90);
            });
          }),
        );
      },
      { stallTimeoutMs: 30 },
    );
    expect(await readsRight(blobs, 0, 2000)).toBe(true);
    expect(asked).toHaveLength(1);
  });
});

describe('an answer as bytes', () => {
  const one = { first: 7, last: 16, again: 0 };
  const head = [
    'HTTP/1.1 206 Partial Content',
    'x-empty:',
    'ETAG: "one"',
    'content-LENGTH:10 ',
    'Content-Range:\tbytes 7-16/1000',
  ].join('\r\n');
  const whole = Buffer.concat([Buffer.from(`${head}\r\n\r\n`), bodyOf(one)]);

  it('may come cut anywhere', async () => {
    const reads: Promise<boolean>[] = [];
    for (let cut = 1; cut < whole.length; cut += 3) {
      const { blobs } = await serveBytes([whole.subarray(0, cut), whole.subarray(cut)]);
      reads.push(readsRight(blobs, 7, 10));
    }
    const { blobs } = await serveBytes([...whole].map((byte) => Uint8Array.of(byte)));
    reads.push(readsRight(blobs, 7, 10));
    expect(await Promise.all(reads)).not.toContain(false);
  });

  it.each([
    ['is longer than announced', [whole, 'x']],
    ['ends its head never', [`${head}\r\nx: ${'y'.repeat(40_000)}`]],
    ['has a head that is none', [`${head}\r\nno colon\r\n\r\n`, bodyOf(one)]],
    ['has two lengths', [`${head}\r\nContent-Length: 9\r\n\r\n`, bodyOf(one)]],
    ['is not HTTP', ['\0\x01\x02 206 \r\n\r\n']],
    ['is of an older HTTP', [`HTTP/1.0${head.slice(8)}\r\n\r\n`, bodyOf(one)]],
  ])('that %s leaves memory beside the range alone, and is right or refused', async (_, writes) => {
    const { blobs } = await serveBytes(writes, { stallTimeoutMs: 30 });
    const memory = new Uint8Array(30).fill(0xee);
    const outcome = await blobs.readInto('k', 7, memory.subarray(10, 20)).then(
      () => 'read',
      () => 'refused',
    );
    expect([...memory.subarray(0, 10), ...memory.subarray(20)]).toEqual(Array(20).fill(0xee));
    if (outcome === 'read') expect([...memory.subarray(10, 20)]).toEqual([...bodyOf(one)]);
  });

  it('that is longer than announced is not believed, and what follows it is no answer to anything', async () => {
    const forged = Buffer.concat([whole, Buffer.from(`${head}\r\n\r\n0123456789`)]);
    const { blobs, seen } = await serveScripts([[forged], [whole]]);
    expect(await readsRight(blobs, 7, 10)).toBe(true);
    expect(seen.connections).toBe(2);
  });
});

describe('over TLS', () => {
  const system = getCACertificates('default');
  afterEach(() => setDefaultCACertificates(system));

  it('ranges come whole, again when a connection breaks, by connections that are kept', async () => {
    setDefaultCACertificates([certificate]);
    const { blobs, seen } = await serve(
      (one, response, request) => {
        if (one.first !== 0 || one.again > 0) return give(one, response, request);
        giveHalf(one, response, (socket) => socket.destroy());
      },
      { tls: true },
    );
    expect(await readsRight(blobs, 0, 20_000_000)).toBe(true);
    const before = seen.connections;
    for (let i = 1; i < 4; i++) expect(await readsRight(blobs, i * 1000, 100_000)).toBe(true);
    expect(seen.connections).toBeLessThanOrEqual(before + 1);
  });

  it('a server that cannot prove its name gets nothing', async () => {
    const { blobs, asked } = await serve(give, { tls: true });
    await expect(blobs.readInto('k', 0, new Uint8Array(10))).rejects.toMatchObject({
      code: 'internal_error',
    });
    expect(asked).toEqual([]);
  });
});
