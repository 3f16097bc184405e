// A server with the chat completions interface on a free loopback port, which answers what a test tells it.
import type { IncomingHttpHeaders, Server } from 'node:http';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { OpenAiLabels } from '../../../functions/core/labels/settings.ts';

export interface Asked {
  readonly path: string;
  readonly headers: IncomingHttpHeaders;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into request bodies of every shape.
  readonly body: any;
}

export interface Answered {
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body: string;
}

export interface FakeModel {
  readonly baseUrl: string;
  readonly asked: Asked[];
  close(): Promise<void>;
}

/** Settings of a stage for such a server. */
export function openAiSettings(baseUrl: string, model: string): OpenAiLabels {
  return OpenAiLabels.parse({ provider: 'openai', base_url: baseUrl, model_id: model });
}

/** A completion with this text. */
export function completion(text: string, finish = 'stop'): Answered {
  return {
    body: JSON.stringify({
      id: 'c1',
      object: 'chat.completion',
      choices: [{ index: 0, message: { role: 'assistant', content: text }, finish_reason: finish }],
    }),
  };
}

/** @param answer gets the request and its number, from 0 */
export async function fakeModel(answer: (asked: Asked, n: number) => Answered): Promise<FakeModel> {
  const asked: Asked[] = [];
  const server: Server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      const one = {
        path: request.url ?? '',
        headers: request.headers,
        body: JSON.parse(Buffer.concat(chunks).toString('utf8')),
      };
      asked.push(one);
      const { status = 200, headers = {}, body } = answer(one, asked.length - 1);
      response.writeHead(status, { 'Content-Type': 'application/json', ...headers });
      response.end(body);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  return {
    baseUrl: `http://127.0.0.1:${port}/v1`,
    asked,
    close: () => new Promise((resolve) => server.close(() => resolve())),
  };
}
