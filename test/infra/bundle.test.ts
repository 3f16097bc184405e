// One esbuild pass makes every Lambda an ES module that runs by itself.
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { bundleAll } from '../../infra/constructs/bundle.ts';

let root: string;
const made: string[] = [];

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'granary-bundle-test-'));
  mkdirSync(join(root, 'functions', 'api'), { recursive: true });
});
afterEach(() => {
  for (const folder of [root, ...made.splice(0)]) rmSync(folder, { recursive: true, force: true });
});

function bundle(lambdas: Parameters<typeof bundleAll>[0]): string {
  const folder = bundleAll(lambdas, root);
  made.push(folder);
  return folder;
}

describe('bundleAll', () => {
  it('names every Lambda that has no entry file, and how to do without', () => {
    writeFileSync(join(root, 'functions', 'api', 'index.ts'), 'export const handler = () => 1;');
    expect(() => bundle(['api', 'query', 'relay'])).toThrow(
      /functions\/query\/index\.ts, functions\/relay\/index\.ts.*bundling-stacks/,
    );
  });

  it('makes a module that runs, although a package inside it calls require', () => {
    mkdirSync(join(root, 'node_modules', 'old'), { recursive: true });
    writeFileSync(join(root, 'node_modules', 'old', 'package.json'), '{"name":"old","main":"index.js"}');
    writeFileSync(
      join(root, 'node_modules', 'old', 'index.js'),
      "exports.sep = require('node:path').posix.sep;",
    );
    writeFileSync(
      join(root, 'functions', 'api', 'index.ts'),
      "import { sep } from 'old'; export const handler = async (event: { n: number }) => sep.repeat(event.n);",
    );
    const url = pathToFileURL(join(bundle(['api']), 'api', 'index.mjs')).href;
    const script = `const { handler } = await import(${JSON.stringify(url)}); process.stdout.write(await handler({ n: 3 }));`;
    expect(
      execFileSync(process.execPath, ['--input-type=module', '--eval', script], { encoding: 'utf8' }),
    ).toBe('///');
  });

  it('puts the kernel beside a bundle that reads it, and beside no other', () => {
    mkdirSync(join(root, 'functions', 'query'), { recursive: true });
    mkdirSync(join(root, 'functions', 'core', 'vectors', 'kernel'), { recursive: true });
    writeFileSync(join(root, 'functions', 'core', 'vectors', 'kernel', 'kernel.wasm'), 'the kernel');
    writeFileSync(
      join(root, 'functions', 'core', 'vectors', 'kernel', 'kernel.ts'),
      "import { readFileSync } from 'node:fs'; export const read = () => readFileSync(new URL('./kernel.wasm', import.meta.url), 'utf8');",
    );
    writeFileSync(
      join(root, 'functions', 'query', 'index.ts'),
      "export { read as handler } from '../core/vectors/kernel/kernel.ts';",
    );
    writeFileSync(join(root, 'functions', 'api', 'index.ts'), 'export const handler = () => 1;');
    const folder = bundle(['api', 'query']);
    const url = pathToFileURL(join(folder, 'query', 'index.mjs')).href;
    const script = `const { handler } = await import(${JSON.stringify(url)}); process.stdout.write(handler());`;
    expect(
      execFileSync(process.execPath, ['--input-type=module', '--eval', script], { encoding: 'utf8' }),
    ).toBe('the kernel');
    expect(existsSync(join(folder, 'api', 'kernel.wasm'))).toBe(false);
  });
});
