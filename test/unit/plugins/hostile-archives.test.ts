// The corpus of hostile archives, each through the real reader and, if it passes that, the real validator in Python.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import type { FieldFault } from '../../../functions/core/errors.ts';
import { readArchive } from '../../../functions/core/resources/plugins/archive.ts';
import { readArchives, readFor, refusedArchives } from '../../fixtures/archives.ts';

const root = fileURLToPath(new URL('../../..', import.meta.url));
/** As Lambda calls it, one event after the other in one process: what breaks it for one plugin would show in the next. */
const program = `
import json, sys
sys.path.insert(0, "functions/plugin-validator")
from handler import handler
print(json.dumps([handler(json.loads(line), None) for line in sys.stdin]))
`;

interface Answer {
  readonly ok: boolean;
  readonly errors: readonly FieldFault[];
  readonly warnings: readonly FieldFault[];
  readonly manifest: object | null;
}

/** As the runner unpacks an archive when it is used: the files that a plugin would find, or why there are none. */
const unpacking = `
import base64, io, json, os, sys, tempfile
from pathlib import Path
sys.path.insert(0, "functions/plugin-runner")
from _archive import unpack
from _errors import RunnerError

def files(packed):
    with tempfile.TemporaryDirectory() as folder:
        try:
            unpack(io.BytesIO(packed), Path(folder))
        except RunnerError as fault:
            return {"refused": str(fault)}
        return {"files": sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*") if p.is_file())}

print(json.dumps([files(base64.b64decode(json.loads(line))) for line in sys.stdin]))
`;

function askPython<T>(code: string, inputs: readonly unknown[]): T[] {
  const ran = spawnSync(`${root}.local/venv/bin/python`, ['-c', code], {
    cwd: root,
    input: inputs.map((input) => `${JSON.stringify(input)}\n`).join(''),
    encoding: 'utf8',
    maxBuffer: 100_000_000,
  });
  if (ran.status !== 0) throw new Error(`Python ended with ${ran.status ?? ran.signal}: ${ran.stderr}`);
  return JSON.parse(ran.stdout) as T[];
}

describe('an archive is refused before its code is looked at', () => {
  it.each(refusedArchives)('$name', async ({ bytes, types, at }) => {
    const read = await readArchive(bytes());
    if (read.ok) throw new Error('it was accepted');
    expect([...new Set(read.faults.map((fault) => fault.type))].sort().join(' ')).toBe(types);
    expect(read.faults[0]!.location).toEqual([at, 0, 0]);
    for (const fault of read.faults) {
      expect(fault.message).not.toMatch(/\p{Cc}/u);
      expect(fault.message.length).toBeLessThan(600);
      expect(fault.fix).not.toBe('');
      expect(fault.fix).toBeDefined();
    }
  });
});

describe('the corpus', () => {
  it('has at least sixty archives, each with a name of its own', () => {
    const names = [...refusedArchives, ...readArchives].map(({ name }) => name);
    expect(names.length).toBeGreaterThanOrEqual(60);
    expect(new Set(names).size).toBe(names.length);
  });
});

describe('a sound archive meets its outcome in the validator, and the next one is not disturbed', () => {
  const answers = (async () => {
    const events = [];
    for (const { name, bytes } of readArchives) {
      const read = await readArchive(bytes());
      if (!read.ok) throw new Error(`${name}: ${JSON.stringify(read.faults)}`);
      const { sources, otherFiles } = read.archive;
      const files = [...sources].map(([path, content]) => ({
        path,
        content_base64: content.toString('base64'),
      }));
      events.push({ ...readFor, files, other_files: otherFiles });
    }
    return askPython<Answer>(program, events);
  })();

  it.each(readArchives.map((archive, i) => ({ ...archive, i })))('$name', async ({ i, errors, warnings }) => {
    const answer = (await answers)[i]!;
    expect(answer.errors.map(({ type, location }) => `${type} ${location[0]}`)).toEqual(errors);
    expect(answer.warnings.map(({ type }) => type)).toEqual(warnings);
    expect(answer.ok).toBe(errors.length === 0);
    expect(answer.manifest !== null).toBe(errors.length === 0);
    for (const { fix, location } of [...answer.errors, ...answer.warnings]) {
      expect(fix).toBeTruthy();
      expect(location.length).toBe(3);
    }
  });
});

describe('what is read here is what is unpacked there', () => {
  it('every archive that passes holds the same files for the runner, which finds no other fault in it', async () => {
    const archives = await Promise.all(
      [...refusedArchives, ...readArchives].map(async ({ name, bytes }) => {
        const packed = bytes();
        const read = await readArchive(packed);
        return { name, packed, archive: read.ok ? read.archive : undefined };
      }),
    );
    const passed = archives.flatMap(({ name, packed, archive }) =>
      archive ? [{ name, packed, archive }] : [],
    );
    expect(passed.length).toBe(readArchives.length);
    const unpacked = askPython<object>(
      unpacking,
      passed.map(({ packed }) => packed.toString('base64')),
    );
    for (const [i, { name, archive }] of passed.entries()) {
      const files = [...archive.sources.keys(), ...archive.otherFiles].map((path) => archive.root + path);
      expect(unpacked[i], name).toEqual({ files: files.sort() });
    }
  });
});
