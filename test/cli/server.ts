// The whole API behind a port of this machine, with a store of bytes whose presigned URLs work; and the real program run
// against it.
import { spawn } from 'node:child_process';
import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';
import type { IndexJob } from '../../functions/core/events.ts';
import { runTransfer } from '../../functions/core/resources/transfers/service.ts';
import { BlobMissing } from '../../functions/core/store/blobs.ts';
import { MemoryBlobs } from '../../functions/core/store/memory.ts';
import { type App, makeApp, makeTestPorts } from '../http/app.ts';

export const apiKey = 'grn_test_aaaaaaaa';

class LoopbackBlobs extends MemoryBlobs {
  /** Where its keys begin. */
  base = '';
  /** What a client gets instead of the file; undefined: the file. */
  damage: ((bytes: Uint8Array) => Uint8Array) | undefined;

  override async presignGet(key: string): Promise<string> {
    return `${this.base}/${key}`;
  }

  override async presignPut(key: string): Promise<string> {
    return `${this.base}/${key}`;
  }
}

export interface Server {
  readonly app: App;
  readonly blobs: LoopbackBlobs;
  /** Of plugins. */
  readonly archives: LoopbackBlobs;
  readonly url: string;
  /** Answers of the API in this order before the real ones. */
  readonly answers: { readonly status: number; readonly body: string }[];
  /** Does the work of the queue: exports and imports that became tasks. */
  work(): Promise<void>;
  close(): Promise<void>;
}

async function bodyOf(request: IncomingMessage): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const part of request) parts.push(part as Buffer);
  return Buffer.concat(parts);
}

export async function startServer(options: Parameters<typeof makeTestPorts>[0] = {}): Promise<Server> {
  const ports = makeTestPorts(options);
  const blobs = new LoopbackBlobs('blobs', ports.clock);
  const archives = new LoopbackBlobs('archives', ports.clock);
  const stores = { _blobs: blobs, _archives: archives };
  const app = await makeApp({ ports: { ...ports, blobs, archives } });
  const answers: { status: number; body: string }[] = [];
  const http = createServer(async (request, response) => {
    const body = await bodyOf(request);
    const path = request.url ?? '/';
    const stored = /^\/(_blobs|_archives)\/(.*)$/.exec(path);
    if (stored) {
      const store = stores[stored[1] as keyof typeof stores];
      const key = decodeURIComponent(stored[2]!);
      try {
        if (request.method === 'PUT') await store.put(key, body);
        else {
          const bytes = await store.get(key);
          response.write(store.damage ? store.damage(bytes) : bytes);
        }
      } catch (error) {
        response.statusCode = error instanceof BlobMissing ? 404 : 500;
      }
      response.end();
      return;
    }
    const planned = answers.shift();
    if (planned) {
      response.statusCode = planned.status;
      response.end(planned.body);
      return;
    }
    const isKnown = request.headers.authorization === `Bearer ${apiKey}`;
    const headers = Object.fromEntries(
      Object.entries(request.headers).filter(
        (entry): entry is [string, string] => typeof entry[1] === 'string',
      ),
    );
    const reply = await app
      .as(isKnown ? app.principal : undefined)
      .call(request.method ?? 'GET', path, body.length === 0 ? undefined : body.toString(), headers);
    response.writeHead(reply.status, reply.headers);
    response.end(reply.body === undefined ? '' : JSON.stringify(reply.body));
  });
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(http.address() as AddressInfo).port}`;
  for (const [name, store] of Object.entries(stores)) store.base = `${url}/${name}`;
  return {
    app,
    blobs,
    archives,
    url,
    answers,
    async work() {
      for (const item of app.ports.table.dump().filter(({ pk }) => pk.startsWith('OUTBOX#'))) {
        const { to, job } = JSON.parse(String(item.message)) as { to: string; job: IndexJob };
        if (to === 'jobs' && job.kind === 'index' && job.run_id !== undefined)
          await runTransfer(app.ctx, job, app.ports.clock.now() + 900_000);
      }
    },
    close: () =>
      new Promise((resolve) => {
        http.closeAllConnections();
        http.close(() => resolve());
      }),
  };
}

export interface Ended {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

const program = fileURLToPath(new URL('../../cli/granary.js', import.meta.url));

/** Runs the real program with an environment of its own. */
export function granary(args: readonly string[], env: Readonly<Record<string, string>>): Promise<Ended> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [program, ...args], {
      env: { PATH: process.env.PATH ?? '', HOME: '/nonexistent', ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    let out = '';
    let err = '';
    child.stdout.setEncoding('utf8').on('data', (text) => {
      out += text;
    });
    child.stderr.setEncoding('utf8').on('data', (text) => {
      err += text;
    });
    child.once('error', reject);
    child.once('close', (code) => resolve({ code, out, err }));
  });
}
