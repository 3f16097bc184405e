// A webhook receiver on loopback that answers as it is told and checks signatures by the public library, not by our code.
import { createHmac } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Webhook } from 'standardwebhooks';
import type { Json } from './stack.ts';

export interface Received {
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  /** As it was sent; signatures are over these characters. */
  readonly text: string;
  readonly body: Json;
  /** What was answered. */
  readonly status: number;
}

export interface Receiver {
  /** `http://127.0.0.1:<port>` */
  readonly url: string;
  /** Everything that came, in order. */
  readonly received: readonly Received[];
  at(path: string): Received[];
  /** Answers the next requests to a path by these statuses, one each; then 204. */
  answer(path: string, ...statuses: number[]): void;
  close(): Promise<void>;
}

export async function startReceiver(): Promise<Receiver> {
  const received: Received[] = [];
  const orders = new Map<string, number[]>();
  const server = createServer((request, response) => {
    let text = '';
    request.setEncoding('utf8').on('data', (part: string) => {
      text += part;
    });
    request.on('end', () => {
      const path = request.url ?? '/';
      const status = orders.get(path)?.shift() ?? 204;
      received.push({ path, headers: request.headers, text, body: JSON.parse(text), status });
      response.writeHead(status).end();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    received,
    at: (path) => received.filter((one) => one.path === path),
    answer: (path, ...statuses) => void orders.set(path, statuses),
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** @throws Error if the Standard Webhooks signature or the client's own one is not that of the secret */
export function verify(one: Received, secret: string): void {
  const headers = Object.fromEntries(
    Object.entries(one.headers).map(([name, value]) => [name, String(value)]),
  );
  new Webhook(secret).verify(one.text, headers);
  const [, time, signature] = /^t=(\d+),v1=([0-9a-f]+)$/.exec(headers['x-mixpeek-signature'] ?? '') ?? [];
  const expected = createHmac('sha256', secret).update(`${time}.${one.text}`).digest('hex');
  if (signature !== expected)
    throw new Error(`X-Mixpeek-Signature is ${headers['x-mixpeek-signature']}, expected v1=${expected}`);
  if (time !== headers['webhook-timestamp']) throw new Error('the two signatures have different times');
}
