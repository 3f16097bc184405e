// The generated documents: what is committed is what the code makes, it passes a linter, and nothing is left out.
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { generatedDocs } from '../../docs/generate.ts';
import { errorTable } from '../../functions/core/errors.ts';
import type { OpenApiDocument } from '../../functions/core/http/openapi.ts';
import { errorCodesOf } from '../../functions/core/http/openapi-errors.ts';
import { clientForm, parameterNames } from '../../functions/core/http/route.ts';
import { allRoutes } from '../../functions/core/resources/contracts.ts';

const docs = new URL('../../docs/', import.meta.url);
const generated = generatedDocs();
const document = JSON.parse(generated['openapi.json']!) as OpenApiDocument;

interface Operation {
  readonly operationId: string;
  readonly parameters: readonly { readonly $ref?: string; readonly name?: string }[];
  readonly responses: Readonly<Record<string, { readonly $ref?: string }>>;
  readonly security?: readonly unknown[];
  readonly 'x-client-path'?: string;
}
const operationAt = (path: string, method: string) =>
  document.paths[path]?.[method.toLowerCase()] as Operation | undefined;

describe('generated documents', () => {
  it.each(Object.keys(generated))('docs/%s is what the code makes (else run `npm run docs`)', (name) => {
    const committed = readFileSync(new URL(name, docs), 'utf8');
    // Compared by a flag, because a diff of half a megabyte helps nobody.
    expect(committed === generated[name], `docs/${name} is stale: run "npm run docs"`).toBe(true);
  });

  it('the API document passes the linter, without a network', () => {
    const cli = fileURLToPath(new URL('../../node_modules/@redocly/cli/bin/cli.js', import.meta.url));
    const run = spawnSync(
      process.execPath,
      [cli, 'lint', 'openapi.json', '--config', 'redocly.yaml', '--format', 'stylish'],
      {
        cwd: fileURLToPath(docs),
        encoding: 'utf8',
        env: { ...process.env, REDOCLY_TELEMETRY: 'off', REDOCLY_SUPPRESS_UPDATE_NOTICE: 'true', CI: 'true' },
      },
    );
    expect(run.status, `${run.stdout}\n${run.stderr}`).toBe(0);
    expect(`${run.stdout}${run.stderr}`).toContain('Your API description is valid');
  });
});

describe('the API document', () => {
  it('holds every route and nothing else', () => {
    const operations = Object.values(document.paths).flatMap((methods) =>
      Object.values(methods as Record<string, Operation>),
    );
    expect(operations.map((operation) => operation.operationId).sort()).toEqual(
      allRoutes.map((route) => route.operation).sort(),
    );
    for (const route of allRoutes)
      expect(operationAt(route.path, route.method)?.operationId).toBe(route.operation);
  });

  it('names the second form of every path that has one, and the parameters of each', () => {
    for (const route of allRoutes) {
      const operation = operationAt(route.path, route.method)!;
      expect(operation['x-client-path']).toBe(clientForm(route.path));
      const refs = operation.parameters.map((parameter) => parameter.$ref);
      for (const name of parameterNames(route.path))
        expect(refs).toContain(`#/components/parameters/path_${name}`);
      expect(refs.includes('#/components/parameters/IdempotencyKey')).toBe(route.method === 'POST');
    }
  });

  it('lists every error of each route under its status, with the one error schema', () => {
    const responses = document.components.responses as Record<
      string,
      { content: Record<string, { schema: { $ref: string } }>; description: string }
    >;
    for (const route of allRoutes) {
      const operation = operationAt(route.path, route.method)!;
      const described = Object.entries(operation.responses)
        .filter(([status]) => Number(status) >= 400)
        .flatMap(([, { $ref }]) => $ref!.split('/').at(-1)!.split('.'));
      expect(described.sort()).toEqual(errorCodesOf(route).sort());
    }
    for (const response of Object.values(responses)) {
      expect(response.content['application/json']!.schema.$ref).toBe('#/components/schemas/Error');
      expect(response.description).not.toBe('');
    }
  });

  it('asks for a key everywhere but where a route says that it needs none', () => {
    expect(document.security).toEqual([{ key: [] }]);
    for (const route of allRoutes) {
      const { security } = operationAt(route.path, route.method)!;
      expect(security).toEqual(route.permission === 'none' ? [] : undefined);
    }
  });

  it('has no schema with a generated name', () => {
    expect(Object.keys(document.components.schemas!).filter((name) => name.startsWith('_'))).toEqual([]);
    expect(generated['openapi.json']).not.toContain('__schema');
  });
});

describe('the page of errors', () => {
  it('has a line for every code', () => {
    for (const code of Object.keys(errorTable)) expect(generated['errors.md']).toContain(`| \`${code}\` |`);
  });
});
