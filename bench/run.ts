// `npm run bench`: measures a deployment on an emulator of its own; prints a table and writes .local/bench.json.
//
//   npm run bench                    everything, some minutes
//   npm run bench -- --quick         fewer rounds and 2,000 objects instead of 10,000: to try the bench itself
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { projectFolder } from '../local/emulator.ts';
import type { BareRun, BatchRun, StepTime } from './batches.ts';
import { fillBucket, makeCollection, runBare, runBatch, stepTimes } from './batches.ts';
import type { Weight } from './bundles.ts';
import { weighLambdas } from './bundles.ts';
import type { Figure } from './figures.ts';
import { rounded, tableOf } from './figures.ts';
import { commit, machine } from './machine.ts';
import type { Samples } from './measure.ts';
import { median, ratioOf } from './measure.ts';
import { measureRequests } from './requests.ts';
import { makeStack } from './stack.ts';
import { makeTexts } from './texts.ts';

const { values: asked } = parseArgs({ options: { quick: { type: 'boolean', default: false } } });
/** A quick run's figures are named like those of a full one, so its file is another. */
const settings = asked.quick
  ? { big: 2_000, batchRounds: 1, rounds: 3, warmRounds: 1, calls: 10, file: 'bench-quick.json' }
  : { big: 10_000, batchRounds: 3, rounds: 12, warmRounds: 4, calls: 25, file: 'bench.json' };
const small = 1_000;
/** `batch_size` in the manifest of the plugin: the frames that the runner makes. */
const frameRows = 256;

const started = performance.now();
const say = (line: string) =>
  console.log(`${((performance.now() - started) / 1000).toFixed(1).padStart(7)} s  ${line}`);

function requestFigures(samples: Readonly<Record<string, Samples>>): Figure[] {
  const figures: Figure[] = [];
  const add = (name: string, one: string, echo: string, goal: number | null) => {
    const [ours, theirs] = [samples[one]!, samples[echo]!];
    const runs = ours.calls.length;
    figures.push({
      name: `${name}_vs_echo`,
      value: ratioOf(ours, theirs),
      unit: 'ratio',
      goal,
      better: 'lower',
      runs,
    });
    if (ours.cpuMs !== undefined && theirs.cpuMs) {
      figures.push({
        name: `${name}_vs_echo_cpu`,
        value: ours.cpuMs / theirs.cpuMs,
        unit: 'ratio',
        goal: null,
        better: 'lower',
        runs,
      });
    }
  };
  add('get', 'get', 'get_echo', 1.5);
  add('create', 'create', 'create_echo', null);
  add('execute_1k', 'execute_1k', 'execute_echo', null);
  add('execute_10k', 'execute_10k', 'execute_echo', 3);
  for (const [name, one] of Object.entries(samples)) {
    const runs = one.calls.length;
    figures.push({
      name: `${name}_ms`,
      value: median(one.calls),
      unit: 'ms',
      goal: null,
      better: 'lower',
      runs,
    });
    if (one.cpuMs !== undefined)
      figures.push({
        name: `${name}_cpu_ms`,
        value: one.cpuMs,
        unit: 'ms CPU',
        goal: null,
        better: 'lower',
        runs,
      });
  }
  return figures;
}

interface BatchRound {
  readonly small: BatchRun;
  readonly big: BatchRun;
  readonly bare: readonly BareRun[];
}

function batchFigures(rounds: readonly BatchRound[]): Figure[] {
  const runs = rounds.length;
  const of = (pick: (round: BatchRound) => number) => median(rounds.map(pick));
  const thousands = (settings.big - small) / 1000;
  const marginal = (one: { wallMs: number }, other: { wallMs: number }) =>
    (other.wallMs - one.wallMs) / thousands;
  const bareMarginal = (round: BatchRound) => marginal(round.bare[0]!, round.bare[1]!);
  const ratio = { unit: 'ratio', better: 'lower' as const, runs };
  const rate = { unit: 'objects/s', goal: null, better: 'higher' as const, runs };
  const time = { unit: 'ms', goal: null, better: 'lower' as const, runs };
  const figures: Figure[] = [
    {
      name: 'batch_marginal_vs_bare',
      value: of((r) => marginal(r.small, r.big) / bareMarginal(r)),
      goal: 10,
      ...ratio,
    },
    {
      name: 'batch_growth_10k_vs_1k',
      value: of((r) => r.big.wallMs / r.big.objects / (r.small.wallMs / r.small.objects)),
      goal: 1.1,
      ...ratio,
    },
    { name: 'batch_1k_objects_per_s', value: of((r) => (r.small.objects / r.small.wallMs) * 1000), ...rate },
    { name: 'batch_10k_objects_per_s', value: of((r) => (r.big.objects / r.big.wallMs) * 1000), ...rate },
    { name: 'batch_1k_ms', value: of((r) => r.small.wallMs), ...time },
    { name: 'batch_10k_ms', value: of((r) => r.big.wallMs), ...time },
    { name: 'batch_marginal_ms_per_1k', value: of((r) => marginal(r.small, r.big)), ...time },
    { name: 'bare_marginal_ms_per_1k', value: of(bareMarginal), ...time },
  ];
  if (rounds.every((r) => r.small.cpuMs !== undefined && r.big.cpuMs !== undefined)) {
    const cpuMarginal = (r: BatchRound) => (r.big.cpuMs! - r.small.cpuMs!) / thousands;
    const bareCpuMarginal = (r: BatchRound) => (r.bare[1]!.cpuMs - r.bare[0]!.cpuMs) / thousands;
    figures.push({
      name: 'batch_marginal_vs_bare_cpu',
      value: of((r) => cpuMarginal(r) / bareCpuMarginal(r)),
      goal: null,
      ...ratio,
    });
    figures.push({ name: 'batch_marginal_cpu_ms_per_1k', value: of(cpuMarginal), ...time, unit: 'ms CPU' });
  }
  return figures;
}

const stepFigures = (steps: readonly StepTime[]): Figure[] =>
  steps.map(({ step, ms }) => ({
    name: `batch_10k_step_${step.replace(/[^A-Za-z]+/g, '_').toLowerCase()}_ms`,
    value: ms,
    unit: 'ms',
    goal: null,
    better: 'lower',
    runs: 1,
  }));

const weightFigures = (weights: readonly Weight[]): Figure[] =>
  weights.flatMap(({ lambda, bytes, importCpuMs, runs }): Figure[] => {
    const name = lambda.replaceAll('-', '_');
    return [
      { name: `bundle_${name}_bytes`, value: bytes, unit: 'bytes', goal: null, better: 'lower', runs: 1 },
      {
        name: `import_${name}_cpu_ms`,
        value: importCpuMs,
        unit: 'ms CPU',
        goal: null,
        better: 'lower',
        runs,
      },
    ];
  });

const stack = await makeStack(say);
try {
  const texts = makeTexts(settings.big);
  say(`making ${small} and ${settings.big} objects`);
  const filling = performance.now();
  const smallBucket = await fillBucket(stack, 'small', texts.slice(0, small));
  const bigBucket = await fillBucket(stack, 'big', texts);
  const fillMs = performance.now() - filling;
  const requestBucket = await fillBucket(stack, 'requests', texts.slice(0, 1));
  say('warming up by a batch');
  await runBatch(stack, smallBucket, await makeCollection(stack, 'warm', smallBucket));

  const rounds: BatchRound[] = [];
  let collections = { small: '', big: '' };
  for (let round = 1; round <= settings.batchRounds; round++) {
    // Fresh collections: objects that were done before would be left out.
    collections = {
      small: await makeCollection(stack, `small_${round}`, smallBucket),
      big: await makeCollection(stack, `big_${round}`, bigBucket),
    };
    const bare = runBare(texts, [small, settings.big], frameRows);
    const one: BatchRound = {
      small: await runBatch(stack, smallBucket, collections.small),
      big: await runBatch(stack, bigBucket, collections.big),
      bare,
    };
    rounds.push(one);
    say(
      `batches, round ${round} of ${settings.batchRounds}: ${small} objects in ${Math.round(one.small.wallMs)} ms, ${settings.big} in ${Math.round(one.big.wallMs)} ms`,
    );
  }
  const steps = await stepTimes(stack, bigBucket, rounds.at(-1)!.big.batchId);

  say(`requests: ${settings.rounds} rounds of ${settings.calls} calls each`);
  const samples = await measureRequests(stack, {
    rounds: settings.rounds,
    warmRounds: settings.warmRounds,
    calls: settings.calls,
    bucketId: requestBucket,
    collections: { execute_1k: collections.small, execute_10k: collections.big },
  });

  say('weighing the bundles');
  const figures: Figure[] = [
    ...requestFigures(samples),
    ...batchFigures(rounds),
    ...stepFigures(steps),
    {
      name: 'bulk_create_objects_per_s',
      value: ((small + settings.big) / fillMs) * 1000,
      unit: 'objects/s',
      goal: null,
      better: 'higher',
      runs: 1,
    },
    { name: 'deploy_s', value: stack.deployMs / 1000, unit: 's', goal: null, better: 'lower', runs: 1 },
    ...weightFigures(weighLambdas()),
  ];
  console.log(`\n${tableOf(figures)}`);
  const folder = join(projectFolder, '.local');
  mkdirSync(folder, { recursive: true });
  const file = join(folder, settings.file);
  const written = figures.map((figure) => ({ ...figure, value: rounded(figure.value) }));
  writeFileSync(
    file,
    `${JSON.stringify({ figures: written, machine: machine(), commit: commit() }, null, 2)}\n`,
  );
  console.log(`\nWritten to ${file}; bench/README.md says how to read it.`);
} finally {
  await stack.close();
}
