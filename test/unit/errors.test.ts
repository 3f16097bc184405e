// The closed table of errors: names that workflows match, statuses that clients switch on, codes that Python uses too.
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import type { ErrorCode } from '../../functions/core/errors.ts';
import { AppError, errorTable, invalid, isAppError, wireTypes } from '../../functions/core/errors.ts';
import { projectPython } from '../../local/emulator.ts';

const codes = Object.keys(errorTable) as ErrorCode[];
const root = fileURLToPath(new URL('../..', import.meta.url));

describe('the table', () => {
  it.each(codes)('%s: a code with a noun, a wire type with a status, a title that says something', (code) => {
    const { type, title } = errorTable[code];
    expect(code).toMatch(/^[a-z]+(_[a-z]+)+$/);
    expect(wireTypes[type]).toBeGreaterThanOrEqual(400);
    expect(title).toMatch(/^[A-Z].{10,}\.$/);
  });

  it('calls retryable what passes by itself, and nothing that the caller must change', () => {
    for (const code of codes) {
      const { type, retryable } = errorTable[code];
      const status = wireTypes[type];
      if ([400, 401, 403, 404, 405, 412, 413, 415, 422].includes(status)) expect(retryable, code).toBe(false);
      if (status === 429) expect(retryable, code).toBe(true);
    }
  });

  it('has the errors of every resource that can be named, used and changed', () => {
    for (const noun of [
      'bucket',
      'collection',
      'plugin',
      'retriever',
      'taxonomy',
      'cluster',
      'alert',
      'webhook',
    ]) {
      for (const outcome of ['not_found', 'name_taken', 'in_use', 'changed'])
        expect(codes).toContain(`${noun}_${outcome}`);
    }
  });

  it('holds every code that is raised anywhere', () => {
    const files: string[] = [];
    const walk = (folder: string) => {
      for (const entry of readdirSync(folder, { withFileTypes: true })) {
        const path = join(folder, entry.name);
        if (entry.isDirectory()) walk(path);
        else if (/\.ts$/.test(entry.name) && !path.endsWith('core/errors.ts'))
          files.push(readFileSync(path, 'utf8'));
      }
    };
    walk(join(root, 'functions'));
    const text = files.join('\n');
    const raised = new Set(
      [...text.matchAll(/(?:new AppError|invalid)\(\s*'([a-z_]+)'/g)].map((match) => match[1]!),
    );
    expect(raised.size).toBeGreaterThan(50);
    expect([...raised].filter((code) => !(code in errorTable))).toEqual([]);
  });
});

describe('an error', () => {
  it('is named by its code, which is what Step Functions matches', () => {
    const error = new AppError('bucket_not_found', { detail: 'No bucket "x".' });
    expect([error.name, error.code, error.message, error.status, error.type, error.retryable]).toEqual([
      'bucket_not_found',
      'bucket_not_found',
      'No bucket "x".',
      404,
      'NotFoundError',
      false,
    ]);
    expect(new AppError('bucket_not_found').message).toBe(errorTable.bucket_not_found.title);
  });

  it('is recognised by name, although bundling may make two copies of the class', () => {
    const copy = Object.assign(new Error('x'), { name: 'bucket_not_found', code: 'bucket_not_found' });
    expect(isAppError(copy)).toBe(true);
    expect(isAppError(copy, 'bucket_not_found', 'bucket_in_use')).toBe(true);
    expect(isAppError(copy, 'bucket_in_use')).toBe(false);
    expect(isAppError(Object.assign(new Error('x'), { name: 'toString', code: 'x' }))).toBe(false);
    for (const other of [
      new Error('bucket_not_found'),
      'bucket_not_found',
      undefined,
      { name: 'bucket_not_found', code: 'x' },
    ])
      expect(isAppError(other)).toBe(false);
  });

  it('of fields counts them and quotes the first with its place', () => {
    const fault = (field: string) => ({ type: 'missing', location: ['body', field], message: 'required' });
    expect(invalid('request_invalid', [fault('a')]).message).toBe('body.a: required');
    expect(invalid('request_invalid', [fault('a'), fault('b'), fault('c')]).message).toBe(
      'body.a: required (and 2 more, see validation_errors)',
    );
    expect(invalid('request_invalid', []).message).toBe(errorTable.request_invalid.title);
  });
});

describe('the codes of Python', () => {
  const tableOf = (folder: string) =>
    JSON.parse(
      execFileSync(projectPython, ['-P', '_errors.py'], {
        cwd: join(root, 'functions', folder),
        encoding: 'utf8',
      }),
    ) as Record<string, { retryable: boolean; title: string }>;

  it('of the runner have a form and a title, and mean the same where both sides have them', () => {
    const runner = tableOf('plugin-runner');
    expect(Object.keys(runner).length).toBeGreaterThan(20);
    for (const [code, { title, retryable }] of Object.entries(runner)) {
      expect(code).toMatch(/^[a-z]+(_[a-z]+)+$/);
      expect(title).toMatch(/^[A-Z].{10,}/);
      if (code in errorTable) expect(retryable, code).toBe(errorTable[code as ErrorCode].retryable);
    }
  });

  it('that TypeScript tells apart are codes that the runner has', () => {
    const runner = tableOf('plugin-runner');
    const text = readFileSync(join(root, 'functions/core/resources/retrievers/embed.ts'), 'utf8');
    const sets = [
      ...text.matchAll(/const (?:timeouts|ours): ReadonlySet<string> = new Set\(\[([^\]]+)\]\)/g),
    ].map((match) => match[1]!);
    const named = sets.flatMap((set) => [...set.matchAll(/'([a-z_]+)'/g)].map((match) => match[1]!));
    expect(named.length).toBeGreaterThanOrEqual(4);
    expect(named.filter((code) => !(code in runner))).toEqual([]);
  });
});
