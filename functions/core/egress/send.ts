// The only place that calls URLs of users. The address is checked when the socket is made and the connection goes to
// exactly that address, so a name that changes its mind between check and use gains nothing.

import type { IncomingMessage } from 'node:http';
import { request as httpRequest } from 'node:http';
import { request as httpsRequest } from 'node:https';
import { RequestFilteringHttpAgent, RequestFilteringHttpsAgent } from 'request-filtering-agent';
import { findTargetFault } from './target.ts';

export interface Sending {
  readonly method: 'GET' | 'POST';
  readonly url: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  readonly connectTimeoutMs: number;
  readonly totalTimeoutMs: number;
  /** Bytes of the answer to keep; the rest is read no further. */
  readonly answerBytesMax: number;
  readonly allowLoopback: boolean;
}

export interface Received {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>;
  readonly body: Uint8Array;
  /** More came than `answerBytesMax`. */
  readonly truncated: boolean;
}

/** Why nothing usable came back, in words for the owner of the endpoint. */
export class EgressFailure extends Error {
  readonly reason: 'refused_target' | 'unreachable' | 'timeout';
  constructor(reason: EgressFailure['reason'], message: string, cause?: unknown) {
    super(message, { cause });
    this.name = 'EgressFailure';
    this.reason = reason;
  }
}

function explain(error: Error & { code?: string }, url: URL): EgressFailure {
  if (/not allowed|private|DNS lookup .* is not allowed/i.test(error.message)) {
    return new EgressFailure(
      'refused_target',
      `${url.hostname} resolves to an address that is not public`,
      error,
    );
  }
  const words: Record<string, string> = {
    ENOTFOUND: 'the host name does not resolve',
    EAI_AGAIN: 'the host name could not be resolved now',
    ECONNREFUSED: 'the connection was refused',
    ECONNRESET: 'the connection was reset',
    EHOSTUNREACH: 'the host cannot be reached',
    CERT_HAS_EXPIRED: 'the certificate has expired',
    DEPTH_ZERO_SELF_SIGNED_CERT: 'the certificate is self-signed',
    ERR_TLS_CERT_ALTNAME_INVALID: 'the certificate is for another host',
  };
  return new EgressFailure(
    'unreachable',
    `${url.host}: ${words[error.code ?? ''] ?? error.code ?? error.message}`,
    error,
  );
}

/**
 * Sends one request. Redirects are not followed: a redirect is an answer with status 3xx.
 *
 * @throws EgressFailure for a refused address, an unreachable host, or when the time is over.
 */
export async function send(sending: Sending): Promise<Received> {
  const fault = findTargetFault(sending.url, sending.allowLoopback);
  if (fault) throw new EgressFailure('refused_target', fault.message);
  const url = new URL(sending.url);
  const secure = url.protocol === 'https:';
  const filter = sending.allowLoopback ? { allowIPAddressList: ['127.0.0.0/8', '::1'] } : {};
  const agent = secure
    ? new RequestFilteringHttpsAgent({ ...filter, keepAlive: false })
    : new RequestFilteringHttpAgent({ ...filter, keepAlive: false });
  const abort = new AbortController();
  const timer = setTimeout(() => abort.abort(), sending.totalTimeoutMs);
  try {
    return await new Promise<Received>((resolve, reject) => {
      const request = (secure ? httpsRequest : httpRequest)(
        url,
        {
          agent,
          method: sending.method,
          headers: {
            ...sending.headers,
            ...(sending.body === undefined
              ? {}
              : { 'Content-Length': String(Buffer.byteLength(sending.body)) }),
          },
          signal: abort.signal,
          timeout: sending.connectTimeoutMs,
        },
        (response: IncomingMessage) => {
          const chunks: Buffer[] = [];
          let bytes = 0;
          const done = (truncated: boolean) =>
            resolve({
              status: response.statusCode ?? 0,
              headers: response.headers,
              body: Buffer.concat(chunks),
              truncated,
            });
          response.on('data', (chunk: Buffer) => {
            const room = sending.answerBytesMax - bytes;
            chunks.push(chunk.subarray(0, room));
            bytes += chunk.length;
            if (bytes > sending.answerBytesMax) {
              done(true);
              response.destroy();
            }
          });
          response.on('end', () => done(false));
          response.on('error', reject);
        },
      );
      request.on('timeout', () => {
        if (!request.socket || request.socket.connecting)
          request.destroy(
            new EgressFailure(
              'timeout',
              `${url.host}: no connection within ${sending.connectTimeoutMs / 1000} s`,
            ),
          );
      });
      request.on('error', reject);
      request.end(sending.body);
    });
  } catch (error) {
    if (error instanceof EgressFailure) throw error;
    if (abort.signal.aborted)
      throw new EgressFailure(
        'timeout',
        `${url.host}: no complete answer within ${sending.totalTimeoutMs / 1000} s`,
        error,
      );
    throw explain(error as Error, url);
  } finally {
    clearTimeout(timer);
    agent.destroy();
  }
}
