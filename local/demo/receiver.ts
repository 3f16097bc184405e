// A webhook receiver on loopback, as a user would write one: checks the signature before it believes anything.
import { createHmac, timingSafeEqual } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

export interface Heard {
  readonly path: string;
  readonly id: string;
  readonly type: string;
  readonly payload: {
    readonly event_type: string;
    readonly subject: { readonly id: string };
    readonly metadata: Record<string, unknown>;
  };
  readonly verified: boolean;
}

export interface Receiver {
  /** `http://127.0.0.1:<port>` */
  readonly url: string;
  readonly heard: readonly Heard[];
  /** The secret that deliveries to a path are signed with. */
  trust(path: string, secret: string): void;
  close(): Promise<void>;
}

/** Tolerance for clocks that differ; older deliveries could be replayed by somebody who recorded them. */
const toleranceSeconds = 300;

/** @see https://www.standardwebhooks.com: HMAC-SHA256 over `id.timestamp.body`. */
function isGenuine(secret: string, id: string, timestamp: string, signature: string, body: string): boolean {
  if (Math.abs(Date.now() / 1000 - Number(timestamp)) > toleranceSeconds) return false;
  const key = Buffer.from(secret.replace(/^whsec_/, ''), 'base64');
  const expected = Buffer.from(
    createHmac('sha256', key).update(`${id}.${timestamp}.${body}`).digest('base64'),
  );
  return signature.split(' ').some((part) => {
    const got = Buffer.from(part.replace(/^v1,/, ''));
    return got.length === expected.length && timingSafeEqual(got, expected);
  });
}

export async function startReceiver(): Promise<Receiver> {
  const heard: Heard[] = [];
  const secrets = new Map<string, string>();
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const body = Buffer.concat(chunks).toString('utf8');
      const header = (name: string) => String(request.headers[name] ?? '');
      const path = request.url ?? '/';
      const secret = secrets.get(path);
      const verified =
        secret !== undefined &&
        isGenuine(
          secret,
          header('webhook-id'),
          header('webhook-timestamp'),
          header('webhook-signature'),
          body,
        );
      const payload = JSON.parse(body) as Heard['payload'];
      heard.push({ path, id: header('webhook-id'), type: payload.event_type, payload, verified });
      response.writeHead(verified ? 204 : 401).end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    heard,
    trust: (path, secret) => void secrets.set(path, secret),
    close: () => new Promise((resolve) => server.close(() => resolve())),
  };
}
