// A small client of the public API for the demonstration: JSON in, JSON out, errors with what the API said.

/** An answer that is not 2xx, with the API's own words. */
export class ApiError extends Error {
  readonly status: number;
  constructor(status: number, method: string, path: string, body: string) {
    super(`${method} ${path} answered ${status}: ${readable(body)}`);
    this.name = 'ApiError';
    this.status = status;
  }
}

function readable(body: string): string {
  try {
    const { error } = JSON.parse(body) as {
      error?: { message?: string; details?: { validation_errors?: unknown[] } };
    };
    const faults = error?.details?.validation_errors ?? [];
    return [
      error?.message ?? body.slice(0, 500),
      ...faults.map((fault) => `  ${JSON.stringify(fault)}`),
    ].join('\n');
  } catch {
    return body.slice(0, 500);
  }
}

// biome-ignore lint/suspicious/noExplicitAny: the demonstration reads answers as a user's script would.
export type Json = any;

export interface Client {
  readonly baseUrl: string;
  call(method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE', path: string, body?: unknown): Promise<Json>;
}

/** @param baseUrl so that `<baseUrl>/v1/...` answers. */
export function makeClient(baseUrl: string, apiKey: string): Client {
  return {
    baseUrl,
    async call(method, path, body) {
      const response = await fetch(`${baseUrl}${path}`, {
        method,
        headers: {
          Authorization: `Bearer ${apiKey}`,
          ...(body === undefined ? {} : { 'Content-Type': 'application/json' }),
        },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
      });
      const text = await response.text();
      if (!response.ok) throw new ApiError(response.status, method, path, text);
      return text === '' ? undefined : JSON.parse(text);
    },
  };
}
