// The README's way to an own plugin, as its reader follows it: every bash block, in one shell, in a clone.
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { Workspace } from '../emulator/stack.ts';
import { makeWorkspace, projectFolder, stack } from '../emulator/stack.ts';
import { bashBlocks, runCommands } from './script.ts';

let folder: string;
let space: Workspace | undefined;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'granary-own-plugin-'));
  space = await makeWorkspace('own-plugin');
});
afterAll(async () => {
  await space?.close();
  rmSync(folder, { recursive: true, force: true });
});

it('leads from an empty folder to a plugin that searches, is read about and changes its version', async () => {
  const text = readFileSync(join(projectFolder, 'README.md'), 'utf8');
  const blocks = bashBlocks(text, 'Your own plugin in ten minutes');
  expect(blocks.length).toBeGreaterThan(0);
  // A clone as its reader has it after `npm start`, as far as the blocks use it.
  const clone = join(folder, 'clone');
  for (const part of ['package.json', 'cli', 'functions', 'examples'])
    cpSync(join(projectFolder, part), join(clone, part), {
      recursive: true,
      filter: (path) => !path.includes('__pycache__'),
    });
  mkdirSync(join(clone, '.local'));
  symlinkSync(join(projectFolder, '.local', 'venv'), join(clone, '.local', 'venv'));
  symlinkSync(join(projectFolder, 'node_modules'), join(clone, 'node_modules'));
  const endpoint = {
    base_url: stack.base_url,
    api_key: space!.client.key,
    namespace_id: space!.namespaceId,
  };
  writeFileSync(join(clone, '.local', 'endpoint.json'), JSON.stringify(endpoint, null, 2));
  const outcome = await runCommands(
    blocks.map((block) => block.replaceAll(/\bsleep [0-9.]+/g, 'sleep 0.3')),
    {
      folder: clone,
      strict: true,
      env: {
        PATH: process.env.PATH ?? '',
        HOME: folder,
        TMPDIR: folder,
        LANG: 'C.UTF-8',
        NO_PROXY: '127.0.0.1',
        no_proxy: '127.0.0.1',
        // npx asks the registry for a newer npm else.
        npm_config_update_notifier: 'false',
      },
    },
  );
  const { printed, variables } = outcome;
  const last = printed.findLast((one) => one !== '') ?? '';
  expect({ code: outcome.code, errors: outcome.errors, last }).toMatchObject({ code: 0 });
  for (const one of printed) expect(one).not.toMatch(/"success":\s*false/);
  const all = printed.join('\n');
  expect(all).toContain('my_words 1.0.0 is sound');
  expect(all).toContain('my_words 1.0.0 over 120 rows of articles.jsonl');
  expect(all).toContain('my_words 1.0.0 is uploaded and deployed (batch_only)');
  expect(all).toContain('"succeeded_count": 60');
  expect(variables.MY_STATUS).toBe('COMPLETED');
  const hits = printed
    .find((one) => one.startsWith('{"score":'))!
    .trimEnd()
    .split('\n');
  expect(hits).toHaveLength(3);
  expect(JSON.parse(hits[0]!).title).toMatch(/quantum|qubit/i);
  expect(all).toMatch(/^ {2}\| embedding \d+ rows$/m);
  expect(last.trimEnd().split('\n').at(-1)).toBe('["mixpeek://my_words@1.0.1/my_words_v1_embedding"]');
});
