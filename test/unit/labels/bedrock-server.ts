// Answers as Bedrock gives them, over HTTP/2 on a free loopback port: the SDK's own client takes them off the wire.
import type { Http2Server, ServerHttp2Session } from 'node:http2';
import { createServer } from 'node:http2';
import type { AddressInfo } from 'node:net';
import { BedrockRuntimeClient } from '@aws-sdk/client-bedrock-runtime';

export interface BedrockAsked {
  readonly path: string;
  // biome-ignore lint/suspicious/noExplicitAny: tests look into request bodies of every shape.
  readonly body: any;
}

export interface BedrockAnswer {
  readonly status?: number;
  /** Name of an error, as the service puts it into a header. */
  readonly error?: string;
  /** A JSON body; undefined: the server never answers. */
  readonly body?: unknown;
}

/** An answer of Converse with these blocks. */
export function converse(content: readonly object[], stopReason = 'tool_use'): BedrockAnswer {
  return {
    body: {
      metrics: { latencyMs: 812 },
      output: { message: { role: 'assistant', content } },
      stopReason,
      usage: { inputTokens: 900, outputTokens: 120, totalTokens: 1020 },
    },
  };
}

/** A call of a tool, as Converse reports it. */
export function toolUse(input: unknown, name = 'name_clusters'): object {
  return { toolUse: { input, name, toolUseId: 'tooluse_kZJMlvQmRJ6eAyJE5GIl7Q' } };
}

export interface FakeBedrock {
  readonly client: BedrockRuntimeClient;
  readonly asked: BedrockAsked[];
  close(): Promise<void>;
}

/** @param answer gets the number of the request, from 0 */
export async function fakeBedrock(answer: (n: number) => BedrockAnswer): Promise<FakeBedrock> {
  const asked: BedrockAsked[] = [];
  const sessions = new Set<ServerHttp2Session>();
  const server: Http2Server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      asked.push({ path: request.url, body: JSON.parse(Buffer.concat(chunks).toString('utf8')) });
      const { status = 200, error, body } = answer(asked.length - 1);
      if (body === undefined && error === undefined) return;
      response.writeHead(status, {
        'content-type': 'application/json',
        ...(error === undefined ? {} : { 'x-amzn-errortype': error }),
      });
      response.end(JSON.stringify(body ?? { message: 'words of the service' }));
    });
  });
  server.on('session', (session) => {
    sessions.add(session);
    session.on('close', () => sessions.delete(session));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  const client = new BedrockRuntimeClient({
    region: 'eu-west-1',
    endpoint: `http://127.0.0.1:${port}`,
    credentials: { accessKeyId: 'AKIDEXAMPLE', secretAccessKey: 'example' },
    maxAttempts: 1,
  });
  return {
    client,
    asked,
    close: () => {
      client.destroy();
      for (const session of sessions) session.destroy();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}
