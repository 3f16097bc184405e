// Calls another Lambda and waits for its answer.
import { InvokeCommand, LambdaClient } from '@aws-sdk/client-lambda';
import { AppError } from '../errors.ts';
import type { FunctionCaller } from '../ports.ts';

/** The service's limit on a synchronous payload, with room for its own envelope. */
const payloadBytesMax = 6_000_000;

export class LambdaCaller implements FunctionCaller {
  readonly #client: LambdaClient;
  readonly #name: string;
  readonly #perTenant: boolean;

  /** @param perTenant the function has a tenancy configuration, so every call must name its tenant. */
  constructor(name: string, perTenant: boolean, client?: LambdaClient) {
    this.#name = name;
    this.#perTenant = perTenant;
    this.#client =
      client ??
      new LambdaClient({
        maxAttempts: 2,
        requestHandler: { requestTimeout: 330_000, connectionTimeout: 5_000 },
      });
  }

  async call(
    payload: unknown,
    options: { readonly tenant?: string; readonly timeoutMs?: number } = {},
  ): Promise<unknown> {
    const body = Buffer.from(JSON.stringify(payload));
    if (body.length > payloadBytesMax) {
      throw new AppError('internal_error', {
        internal: `payload of ${body.length} bytes for ${this.#name}; send a URL instead`,
      });
    }
    const abort = new AbortController();
    const timer =
      options.timeoutMs === undefined ? undefined : setTimeout(() => abort.abort(), options.timeoutMs);
    try {
      const answer = await this.#client.send(
        new InvokeCommand({
          FunctionName: this.#name,
          Payload: body,
          ...(this.#perTenant && options.tenant !== undefined ? { TenantId: options.tenant } : {}),
        }),
        { abortSignal: abort.signal },
      );
      const text = Buffer.from(answer.Payload ?? []).toString('utf8');
      if (answer.FunctionError !== undefined) {
        throw new AppError('plugin_unavailable', {
          internal: `${this.#name} failed: ${text.slice(0, 2000)}`,
        });
      }
      return JSON.parse(text);
    } catch (error) {
      if (error instanceof AppError) throw error;
      if (abort.signal.aborted) {
        throw new AppError('plugin_timeout', {
          detail: `The plugin did not answer within ${options.timeoutMs} ms.`,
          cause: error,
        });
      }
      throw new AppError('plugin_unavailable', {
        cause: error,
        internal: `${(error as Error).name}: ${(error as Error).message}`,
        retryAfterSeconds: 5,
      });
    } finally {
      clearTimeout(timer);
    }
  }
}
