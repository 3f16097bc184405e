// `npm run bench:scale`: latency and cost by number of vectors, and from where on which backend is the better choice.
//
//   npm run bench:scale                        from the last `npm run bench:vectors`, else from recorded figures
//   npm run bench:scale -- --network-mb-s 600  with another bandwidth between S3 and a function
//   npm run bench:scale -- --spread-vectors    as if one function gave up as soon as vectors do not fit beside codes
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { projectFolder } from '../local/emulator.ts';
import type { Figure } from './figures.ts';
import type { Backend, Estimate, Inputs, Measure, Range } from './scale-model.ts';
import { backends, bestRanges, estimate } from './scale-model.ts';

const { values: asked } = parseArgs({
  options: {
    /** Sustained; design of the vector store, section 11. Bursts may reach 600. Not yet measured on AWS. */
    'network-mb-s': { type: 'string', default: '75' },
    'spread-vectors': { type: 'boolean', default: false },
  },
});

/** What stands in for measured figures: the prototype on an idle machine (design, sections 4 and 5). */
const recorded = { int8: 12.9, reranked: 28 };

const counts = [1e4, 1e5, 1e6, 1e7, 1e8, 1e9];
const dimensions = [384, 768];

function readMeasured(): { int8: number; reranked: number; source: string } {
  const file = join(projectFolder, '.local', 'bench-vectors.json');
  if (!existsSync(file)) return { ...recorded, source: 'a prototype on an idle machine, as recorded' };
  const { figures } = JSON.parse(readFileSync(file, 'utf8')) as { figures: Figure[] };
  const figureOf = (name: string) => {
    const figure = figures.find((one) => one.name === name);
    if (figure === undefined)
      throw new Error(`${file} has no figure ${name}: run npm run bench:vectors once more`);
    return figure.value;
  };
  return {
    int8: figureOf('random_384_int8_gb_per_s'),
    reranked: figureOf('random_384_rows_reranked'),
    source: 'the last npm run bench:vectors',
  };
}

const network = Number(asked['network-mb-s']);
if (!(network > 0)) throw new Error(`--network-mb-s is a number above 0, got ${asked['network-mb-s']}`);
const measured = readMeasured();
const inputs: Inputs = {
  codeBytesPerS: measured.int8 * 1e9,
  rowsReranked: measured.reranked,
  // Design, section 11: 10 GB/s per vCPU. Not yet measured on AWS.
  lambdaReadBytesPerS: 10e9,
  networkBytesPerS: network * 1e6,
  // Design, section 11.
  initMs: 250,
  invokeMs: 15,
  // Usual for small reads in the same region.
  s3FirstByteMs: 25,
  // Design, section 1: what LanceDB has been seen to scan on S3.
  lanceBytesPerS: 0.27e9,
  s3VectorsMs: { warm: 100, cold: 1_000 },
  spreadVectors: asked['spread-vectors'],
};

function count(rows: number): string {
  const [unit, divisor] = rows >= 1e9 ? ['G', 1e9] : rows >= 1e6 ? ['M', 1e6] : ['k', 1e3];
  return `${Number((rows / Number(divisor)).toPrecision(3))} ${unit}`;
}

function time(ms: number): string {
  return ms >= 1_000 ? `${Number((ms / 1_000).toPrecision(3))} s` : `${Math.round(ms)} ms`;
}

const dollars = (value: number) =>
  `$${value < 0.01 ? value.toPrecision(2) : value.toFixed(value < 1 ? 3 : 2)}`;

function table(lines: readonly (readonly string[])[]): string {
  const cells = (line: readonly string[]) => `| ${line.join(' | ')} |`;
  return [cells(lines[0]!), cells(lines[0]!.map(() => '---')), ...lines.slice(1).map(cells)].join('\n');
}

/** What a row says about how it is done. */
function how({ backend, functions, rerankFrom, exact }: Estimate): string {
  if (!exact) return 'approximate';
  if (backend === 'lancedb') return 'flat';
  const rest = rerankFrom === 'memory' ? 'all in memory' : 'codes in memory, some rows from S3';
  return functions === 1 ? rest : `${functions} functions, ${rest}`;
}

function printDimension(dims: number): void {
  console.log(`\n## ${dims} dimensions\n`);
  const lines = [['vectors', 'backend', 'warm', 'cold', '1,000 queries', 'storage a month', 'how']];
  for (const rows of counts) {
    for (const backend of backends) {
      const found = estimate(backend, rows, dims, inputs);
      if (found === undefined) continue;
      const { warmMs, coldMs, per1000, storageMonth } = found;
      lines.push([
        count(rows),
        backend,
        time(warmMs),
        time(coldMs),
        dollars(per1000),
        dollars(storageMonth),
        how(found),
      ]);
    }
  }
  console.log(table(lines));
  const exact: readonly Backend[] = ['scan', 'fan-out', 'lancedb'];
  console.log('');
  for (const [measure, name] of [
    ['per1000', 'cost of a warm query'],
    ['warmMs', 'warm latency'],
    ['coldMs', 'cold latency'],
  ] as const satisfies readonly (readonly [Measure, string])[]) {
    console.log(`Best by ${name}: ${rangesText(bestRanges(measure, dims, inputs), backends)}.`);
    console.log(`  among exact answers: ${rangesText(bestRanges(measure, dims, inputs, exact), exact)}.`);
  }
}

function rangesText(ranges: readonly Range[], among: readonly Backend[]): string {
  const best = ranges.map(({ from, backend }, i) => (i === 0 ? backend : `${backend} from ${count(from)}`));
  const never = among.filter((backend) => !ranges.some((range) => range.backend === backend));
  return `${best.join(', ')}${never.length > 0 ? `; never ${never.join(', ')}` : ''}`;
}

console.log(
  `Kernel: int8 codes at ${measured.int8} GB/s, ${measured.reranked} rows scored again (${measured.source}).`,
);
console.log(
  `One vCPU of a Lambda reads at most ${inputs.lambdaReadBytesPerS / 1e9} GB/s from memory and ${network} MB/s from S3.`,
);
console.log(
  'Latency is that of the query function, without gateway. Nothing of this has been measured on AWS.',
);
for (const dims of dimensions) printDimension(dims);
