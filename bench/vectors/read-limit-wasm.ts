// Reads a file's bytes in the memory of a WebAssembly module, by one stream or several: where there is no C compiler.
//
//     node read-limit-wasm.ts <rows file>
import { readFileSync } from 'node:fs';
import { compileString } from 'assemblyscript/asc';
import type { Work } from './serve.ts';
import { serve } from './serve.ts';

const streams = [1, 2, 4, 8, 16];

/** A function that adds up the bytes from `at` on, in `count` streams of `part` bytes each. */
function sourceOf(count: number): string {
  const each = Array.from({ length: count }, (_, i) => i);
  const step = count === 1 ? 4 : 1;
  const sums = Array.from({ length: count * step }, (_, i) => i);
  return `export function s${count}(at: usize, part: usize): i32 {
    ${sums.map((i) => `let v${i}: v128 = i32x4.splat(0);`).join('\n    ')}
    for (let i: usize = 0; i < part; i += ${16 * step}) {
      ${each
        .flatMap((stream) =>
          Array.from({ length: step }, (_, n) => {
            const sum = `v${stream * step + n}`;
            return `${sum} = i32x4.add(${sum}, v128.load(at + ${stream} * part + i + ${16 * n}));`;
          }),
        )
        .join('\n      ')}
    }
    ${sums
      .slice(1)
      .map((i) => `v0 = i32x4.add(v0, v${i});`)
      .join(' ')}
    return i32x4.extract_lane(v0, 0) + i32x4.extract_lane(v0, 1) + i32x4.extract_lane(v0, 2) + i32x4.extract_lane(v0, 3);
  }`;
}

const compiled = await compileString(streams.map(sourceOf).join('\n'), {
  optimizeLevel: 3,
  runtime: 'stub',
  importMemory: true,
  enable: ['simd'],
  // Room for whatever is read.
  initialMemory: 1,
});
if (compiled.error) throw compiled.error;
const bytes = readFileSync(process.argv[2]!);
const pages = Math.ceil(bytes.length / 65_536) + 1;
const memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
new Uint8Array(memory.buffer).set(bytes, 65_536);
const module = new WebAssembly.Module(compiled.binary!);
const instance = new WebAssembly.Instance(module, { env: { memory } });
const readers = instance.exports as unknown as Record<string, (at: number, part: number) => number>;

let sum = 0;
await serve(
  Object.fromEntries(
    streams.map((count): [string, Work] => [
      `s${count}`,
      () => {
        sum += readers[`s${count}`]!(65_536, Math.floor(bytes.length / count / 64) * 64);
        return {};
      },
    ]),
  ),
);
// Asked for, so that no reading can be left out.
process.stderr.write(`${sum}\n`);
