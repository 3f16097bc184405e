// `granary plugin init | validate | test` as their users run them: the real validator and the real runner, here.
import { spawn } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { program } from './program.ts';
import { granary } from './server.ts';

const granaryFile = fileURLToPath(new URL('../../cli/granary.js', import.meta.url));
const examples = fileURLToPath(new URL('../../examples', import.meta.url));

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'granary-cli-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const cli = (...args: string[]) => program(['plugin', ...args]);
const at = (...parts: string[]) => join(folder, ...parts);

/** A plugin from the template `text`, with changes to its files. */
async function plugin(
  files: Readonly<Record<string, string | ((text: string) => string)>> = {},
  name = 'wordy',
) {
  const dir = at(name);
  expect((await cli('init', name, '--dir', dir)).code).toBe(0);
  for (const [path, content] of Object.entries(files)) {
    const file = join(dir, path);
    mkdirSync(dirname(file), { recursive: true });
    writeFileSync(file, typeof content === 'string' ? content : content(readFileSync(file, 'utf8')));
  }
  return dir;
}

const step = (body: string) => `
import sys
class Step:
    def __call__(self, rows):
${body
  .split('\n')
  .map((line) => `        ${line}`)
  .join('\n')}
        return rows

def build_steps(extractor_request, container=None, **kwargs):
    return {"steps": [Step()]}
`;

const small = (text: string) => text.replace('"embedding_dim": 256', '"embedding_dim": 2');

describe('init', () => {
  it.each(['text', 'image', 'pipeline'])(
    'writes from the template %s what validates and tests green',
    async (template) => {
      const made = await cli('init', 'my_first', '--template', template, '--dir', at('here'));
      expect(made).toMatchObject({ code: 0, err: '' });
      expect(made.out).toContain(`granary plugin validate`);
      const validated = await cli('validate', at('here'));
      expect(validated).toMatchObject({ code: 0, err: '' });
      expect(validated.out).toContain('my_first 1.0.0 is sound');
      const tested = await cli('test', at('here'), '--data', at('here', 'sample.jsonl'), '--json');
      expect(tested).toMatchObject({ code: 0, err: '' });
      const result = JSON.parse(tested.out);
      expect(result).toMatchObject({ plugin_id: 'my_first_1_0_0', failures: [], error: null, warnings: [] });
      expect(result.outputs.length).toBeGreaterThan(0);
      expect(result.outputs[0].vectors.my_first_v1_embedding.length).toBeGreaterThan(1);
    },
  );

  it('leaves nothing of the template behind: every file speaks of the new name', async () => {
    for (const template of ['text', 'image', 'pipeline']) {
      await cli('init', 'my_first', '--template', template, '--dir', at(template));
      for (const path of readdirSync(at(template), { recursive: true, encoding: 'utf8' })) {
        if (/\.(py|md|jsonl)$/.test(path))
          expect(readFileSync(at(template, path), 'utf8')).not.toContain('my_plugin');
      }
    }
  });

  it('adds a realtime.py that agrees with the batch steps where it is asked to', async () => {
    expect(existsSync(join(await plugin(), 'realtime.py'))).toBe(false);
    expect((await cli('init', 'quick', '--dir', at('quick'), '--realtime')).code).toBe(0);
    const tested = await cli('test', at('quick'), '--text', 'rain on the roof', '--realtime');
    expect(tested).toMatchObject({ code: 0, err: '' });
    expect(tested.out).toContain('realtime.py agrees with the batch steps to a cosine of 1.0000');
    expect(await cli('init', 'quick', '--template', 'image', '--dir', at('no'), '--realtime')).toMatchObject({
      code: 2,
      err: expect.stringContaining('the template image has no realtime.py; text has'),
    });
    expect(existsSync(at('no'))).toBe(false);
  });

  it('never touches a folder that is there', async () => {
    mkdirSync(at('mine'));
    writeFileSync(at('mine', 'manifest.py'), 'mine');
    expect(await cli('init', 'wordy', '--dir', at('mine'))).toMatchObject({
      code: 2,
      err: expect.stringContaining('is there already and is left as it is'),
    });
    expect(readdirSync(at('mine'))).toEqual(['manifest.py']);
  });

  it.each([
    ['my-plugin', /granary plugin init my_plugin$/m],
    ['2nd', /granary plugin init nd_plugin$/m],
    ['x', /granary plugin init x_plugin$/m],
    ['größe', /granary plugin init grosse$/m],
    ['../up', /granary plugin init up_plugin$/m],
    ['numpy', /would hide the Python name numpy[\s\S]*init numpy_embed$/m],
    ['class', /init class_embed$/m],
  ])('refuses the name %s and says one that would do', async (name, says) => {
    const ended = await cli('init', name);
    expect(ended).toMatchObject({ code: 2, out: '', err: expect.stringMatching(says) });
  });
});

describe('validate', () => {
  it('finds the examples sound', async () => {
    for (const name of ['ngram_embed', 'text_embed', 'digits_image', 'svd_embed']) {
      expect(await cli('validate', join(examples, name))).toMatchObject({
        code: 0,
        out: expect.stringContaining(`${name} 1.0.0 is sound`),
      });
    }
  });

  it('prints every fault with file, line, column and fix, and ends with 1', async () => {
    const dir = await plugin({
      'manifest.py': (text) => text.replace('"distance_metric"', '"metric"').replace('"1.0.0"', '"one"'),
      'pipeline.py': (text) => `${text}\neval("1")\n`,
    });
    const ended = await cli('validate', dir);
    expect(ended.code).toBe(1);
    expect(ended.out).toMatch(
      /^manifest\.py:\d+:\d+: .*"metric".*\n {4}fix: rename "metric" to "distance_metric"$/m,
    );
    expect(ended.out).toMatch(/^manifest\.py:4:11: version: got 'one'\n {4}fix: /m);
    expect(ended.out).toMatch(/^pipeline\.py:\d+:1: .*eval/m);
    expect(ended.err).toBe('error: wordy has 3 faults\n');
    const asJson = await cli('validate', dir, '--json');
    expect(asJson.code).toBe(1);
    const { ok, errors, manifest } = JSON.parse(asJson.out);
    expect([ok, errors.length, manifest]).toEqual([false, 3, null]);
    expect(JSON.parse(asJson.err)).toMatchObject({ error: { exit: 'faulty' } });
  });

  it('judges by the rules for archives too', async () => {
    const dir = await plugin({ 'a\\b.txt': '', 'models/Weights.bin': '', 'models/weights.bin': '' });
    const ended = await cli('validate', dir);
    expect(ended.code).toBe(1);
    expect(ended.out).toMatch(/a\\b\.txt: the name holds a backslash/);
    expect(ended.out).toMatch(/weights\.bin: is the same file as/);
  });

  it('runs nothing of the plugin', async () => {
    const line = `open(${JSON.stringify(at('ran'))}, "w").write("x")\n`;
    const dir = await plugin({ 'manifest.py': (text) => text + line, 'pipeline.py': (text) => text + line });
    await cli('validate', dir);
    expect(existsSync(at('ran'))).toBe(false);
  });

  it.each([
    [
      'a folder without a plugin',
      () => folder,
      /holds neither manifest\.py nor pipeline\.py[\s\S]*granary plugin init/,
    ],
    ['a folder that is not there', () => at('absent'), /cannot be read/],
    ['a file', () => join(examples, 'README.md'), /is a file; name the folder/],
  ])('says what is wrong with %s', async (_, dir, says) => {
    expect(await cli('validate', dir())).toMatchObject({
      code: 2,
      out: '',
      err: expect.stringMatching(says),
    });
  });

  it('says which Python it needs, and how one is made', async () => {
    const dir = await plugin();
    for (const [python, says] of [
      [at('absent'), /cannot be started as a Python/],
      ['/bin/true', /ended with 0 and without an answer/],
    ] as const) {
      const ended = await cli('validate', dir, '--python', python);
      expect(ended.code).not.toBe(0);
      expect(ended.err).toMatch(says);
    }
    writeFileSync(at('old'), `#!/bin/sh\nread -r line\necho '{"problem": "it is Python 3.8.1"}'\n`);
    chmodSync(at('old'), 0o755);
    expect(await program(['plugin', 'validate', dir], { GRANARY_PYTHON: at('old') })).toMatchObject({
      code: 2,
      err: expect.stringMatching(/it is Python 3\.8\.1; one with everything in it is made by "npm start"/),
    });
  });
});

describe('test', () => {
  it('prints the table, the vectors and the times', async () => {
    const dir = await plugin();
    const ended = await cli('test', dir, '--data', join(dir, 'sample.jsonl'));
    expect(ended).toMatchObject({ code: 0, err: '' });
    expect(ended.out).toMatch(/^wordy 1\.0\.0 over 4 rows of sample\.jsonl$/m);
    expect(ended.out).toMatch(/^row +data +words +wordy_v1_embedding$/m);
    expect(ended.out).toMatch(/^ {2}0 {2}The baker kneads .*… +11 +\[[-. 0-9]+ \.\.\.\]$/m);
    expect(ended.out).toMatch(/^ {2}3 +0 +no vector$/m);
    expect(ended.out).toContain(
      'wordy_v1_embedding: 3 vectors of 256 numbers, length 1.000; 1 output without one',
    );
    expect(ended.out).toMatch(
      /^loaded in [\d.]+ ms, ran in [\d.]+ ms \([\d.]+ ms a row; CPU of the plugin [\d.]+ ms\)$/m,
    );
  });

  it('makes the very vectors of the plugin, of CSV as of JSON lines', async () => {
    const dir = await plugin({
      'manifest.py': small,
      'pipeline.py': step('rows["wordy_v1_embedding"] = [[float(len(t)), 1.0] for t in rows["data"]]'),
    });
    writeFileSync(at('rows.csv'), 'text,label\n"a, b",x\nccc,y\n');
    const { outputs } = JSON.parse((await cli('test', dir, '--data', at('rows.csv'), '--json')).out);
    expect(outputs.map((one: { vectors: unknown }) => one.vectors)).toEqual([
      { wordy_v1_embedding: [4, 1] },
      { wordy_v1_embedding: [3, 1] },
    ]);
  });

  it('shows a row that fails with its line, error and traceback, keeps the others, and ends with 1', async () => {
    const dir = await plugin({
      'manifest.py': small,
      'pipeline.py': step(
        'print("looking at", len(rows), "rows")\nfor text in rows["data"]:\n    if "poison" in text:\n        raise ValueError("will not eat this")\nrows["wordy_v1_embedding"] = [[1.0, 2.0] for _ in rows["data"]]',
      ),
    });
    writeFileSync(at('rows.jsonl'), '{"text": "bread"}\n{"text": "poison"}\n{"text": "salt"}\n');
    const ended = await cli('test', dir, '--data', at('rows.jsonl'));
    expect(ended.code).toBe(1);
    expect(ended.err).toBe('error: 1 row of 3 failed\n');
    expect(ended.out).toMatch(/^row 1 \(line 2\): plugin_row_failed: ValueError: will not eat this/m);
    expect(ended.out).toMatch(/^ {4}.*pipeline\.py.*line \d+/m);
    expect(ended.out).toContain('wordy_v1_embedding: 2 vectors');
    expect(ended.out).toMatch(/^printed by the plugin:\n {2}\| looking at \d rows$/m);
  });

  it('prints the first failures alone where many rows fail, and says how many there are', async () => {
    const dir = await plugin({ 'manifest.py': small, 'pipeline.py': step('raise ValueError("no good")') });
    const texts = ['a', 'b', 'c', 'd'].flatMap((text) => ['--text', text]);
    const ended = await cli('test', dir, ...texts, '--show', '2');
    expect(ended).toMatchObject({ code: 1, err: expect.stringMatching(/^error: 4 rows of 4 failed$/m) });
    expect(ended.out.match(/^row \d /gm)).toEqual(['row 0 ', 'row 1 ']);
    expect(ended.out).toContain('... 2 further failed rows (--show)');
  });

  it('says that rows without a vector are found by no search, and how files are given where it takes files', async () => {
    const none = step('rows["wordy_v1_embedding"] = None');
    const said = await cli('test', await plugin({ 'pipeline.py': none }), '--text', 'bread');
    expect(said).toMatchObject({ code: 0, err: '' });
    expect(said.out).toContain('warning: the one output has no vector, so no search finds it');
    await cli('init', 'pics', '--template', 'image', '--dir', at('pics'));
    expect((await cli('test', at('pics'), '--text', 'a.png')).err).toContain(
      'its rows are files, given by their paths: {"image": "a.png"}',
    );
  });

  it('lets no control sequence of the plugin or its data through, on a terminal or in JSON', async () => {
    const evil = 'red \\u001b[31m bell \\u0007 back \\r over \\u009b2J wide \\u202e end';
    const dir = await plugin({
      'manifest.py': small,
      'pipeline.py': step(
        `sys.stdout.write("${evil}\\n")\nrows["wordy_v1_embedding"] = [[1.0, 2.0] for _ in rows["data"]]\nrows["note"] = "${evil}\\nrow 9 (line 9): forged"\nif any("stop" in t for t in rows["data"]):\n    raise ValueError("${evil}\\nerror: forged")`,
      ),
    });
    writeFileSync(at('rows.jsonl'), `{"text": "go ${evil}"}\n{"text": "stop"}\n`);
    for (const args of [[], ['--json']]) {
      const ended = await program(
        ['plugin', 'test', dir, '--data', at('rows.jsonl'), ...args],
        { NO_COLOR: '1' },
        true,
      );
      expect(ended.code).toBe(1);
      // The program's own line of progress is the one thing that moves the cursor.
      const shown = (ended.out + ended.err).replaceAll('\r\u001b[K', '');
      expect(shown).toContain('bell');
      expect(shown).not.toMatch(/(?![\n\t])[\p{Cc}\p{Cf}]/u);
      expect(shown).not.toMatch(/^(row 9|error: forged)/m);
    }
  });

  it('gives parameters, declared secrets and no others, and never shows their values', async () => {
    const dir = await plugin({
      'manifest.py': (text) => `${small(text)}\nsecrets = ["SERVICE_KEY"]\n`,
      'pipeline.py': step('rows["wordy_v1_embedding"] = [[1.0, 2.0] for _ in rows["data"]]').replace(
        '    return {"steps"',
        '    assert extractor_request.extractor_config.parameters.get("k") == 3\n    print("key:", container.secrets.get("SERVICE_KEY"), container.secrets.list())\n    return {"steps"',
      ),
    });
    writeFileSync(
      at('secrets.env'),
      '# of the test\nSERVICE_KEY="pa55-w0rd-of-tests"\nOTHER=not-declared-value\n',
    );
    const ended = await cli(
      'test',
      dir,
      '--text',
      'x',
      '--secrets-file',
      at('secrets.env'),
      '--parameters',
      '{"k": 3}',
    );
    expect(ended.code, ended.out + ended.err).toBe(0);
    expect(ended.err).toContain('does not name OTHER');
    expect(ended.out).toContain('key: ');
    expect(ended.out).toContain("['SERVICE_KEY']");
    expect(ended.out + ended.err).not.toMatch(/pa55|not-declared/);
  });

  it('holds the plugin to its memory class', async () => {
    const dir = await plugin({
      'manifest.py': small,
      'pipeline.py': step(
        'big = bytearray(700_000_000)\nrows["wordy_v1_embedding"] = [[1.0, 2.0] for _ in rows["data"]]',
      ),
    });
    expect((await cli('test', dir, '--text', 'x', '--limit-memory', 'standard')).code).toBe(0);
    const ended = await cli('test', dir, '--text', 'x', '--limit-memory', 'small');
    expect(ended.code).toBe(1);
    expect(ended.out).toMatch(/row 0 \(text 1\): plugin_memory/);
  });

  it('ends with 1 where realtime.py and the batch steps disagree', async () => {
    const dir = await plugin({
      'realtime.py':
        'class InferenceService:\n    def run_inference(self, inputs, parameters):\n        return {"embedding": [1.0] + [0.0] * 255}\n',
    });
    const ended = await cli('test', dir, '--text', 'rain on the roof', '--realtime');
    expect(ended.code).toBe(1);
    expect(ended.err).toMatch(/realtime\.py and the batch steps disagree on wordy_v1_embedding/);
  });

  it('asks realtime.py exactly what is given, and prints its answer', async () => {
    const dir = await plugin({
      'realtime.py':
        'class InferenceService:\n    def run_inference(self, inputs, parameters):\n        return {"doubled": inputs["n"] * parameters.get("by", 2)}\n',
    });
    const ask = (...args: string[]) => cli('test', dir, '--inputs', ...args);
    expect(await ask('{"n": 21}')).toMatchObject({
      code: 0,
      err: '',
      out: expect.stringMatching(/^{"doubled":42}\n/),
    });
    const tripled = await ask('{"n": 21}', '--parameters', '{"by": 3}', '--json');
    expect(JSON.parse(tripled.out)).toMatchObject({ answer: { doubled: 63 }, error: null });
    expect(await ask('{}')).toMatchObject({ code: 1, err: expect.stringMatching(/failed: KeyError/) });
    expect(await ask('{}', '--text', 'x')).toMatchObject({
      code: 2,
      err: expect.stringContaining('are rows'),
    });
  });

  it('says why a plugin cannot be run at all', async () => {
    const dir = await plugin({ 'pipeline.py': (text) => `import absent_package\n${text}` });
    const ended = await cli('test', dir, '--text', 'x');
    expect(ended.code).toBe(1);
    expect(ended.err).toMatch(/could not be run: .*absent_package/);
  });

  it.each([
    [['--data', 'x.jsonl', '--text', 'y'], /not both/],
    [[], /which rows\? --data sample\.jsonl/],
    [['--text', 'x', '--rows', 'many'], /A whole number from 1 to 10000/],
    [['--text', 'x', '--parameters', '[1]'], /Not a JSON object/],
    [['--text', 'x', '--limit-memory', 'huge'], /One of: small, standard, large/],
    [['--text', 'x', '--realtime'], /has no realtime\.py/],
    [['--text', 'x', '--secrets-file', '/absent'], /cannot be read/],
  ])('refuses %j with the right form', async (args, says) => {
    expect(await cli('test', await plugin(), ...args)).toMatchObject({
      code: 2,
      out: '',
      err: expect.stringMatching(says),
    });
  });

  it('leaves nothing running when it is killed while a plugin hangs', async () => {
    const dir = await plugin({
      'manifest.py': small,
      'pipeline.py': step('print("hanging")\nwhile True:\n    pass'),
    });
    // What the runner makes is in a folder of its own, which is gone when all of it has ended. Workers of root run as
    // another user, who must be able to enter it; the folder of the tests may let nobody else in.
    const outside = mkdtempSync('/tmp/granary-cli-');
    try {
      chmodSync(outside, 0o755);
      const child = spawn(process.execPath, [granaryFile, 'plugin', 'test', dir, '--text', 'x'], {
        env: { PATH: process.env.PATH ?? '', HOME: '/nonexistent', TMPDIR: outside },
        stdio: 'ignore',
      });
      const ended = new Promise((resolve) => child.once('exit', resolve));
      const inOutside = () => readdirSync(outside).length;
      while (inOutside() === 0) await pause(20);
      child.kill('SIGKILL');
      await ended;
      while (inOutside() > 0) await pause(20);
    } finally {
      rmSync(outside, { recursive: true, force: true });
    }
  });

  it('needs no URL, no key and no profile, started as a program in the folder itself', async () => {
    cpSync(join(examples, 'ngram_embed'), at('ngram_embed'), { recursive: true });
    const ended = await granary(['plugin', 'test', at('ngram_embed'), '--text', 'quantum computing'], {});
    expect(ended).toMatchObject({ code: 0, err: '' });
    expect(ended.out).toContain('1 vector of 128 numbers, length 1.000');
  });
});
