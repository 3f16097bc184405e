// A Vitest reporter for test/run.ts: counts, failures and the reasons of skipped tests, as one JSON file.
import { writeFileSync } from 'node:fs';
import type { SerializedError } from 'vitest';
import type { Reporter, TestModule } from 'vitest/node';

/** What a level reports, whatever ran it. */
export interface Counts {
  readonly passed: number;
  readonly failures: readonly { readonly name: string; readonly message: string }[];
  readonly skipped: readonly { readonly name: string; readonly reason: string }[];
}

/** Writes to the file that GRANARY_TEST_REPORT names. */
export default class CountsReporter implements Reporter {
  onTestRunEnd(modules: readonly TestModule[], unhandled: readonly SerializedError[]): void {
    const file = process.env.GRANARY_TEST_REPORT;
    if (file === undefined) throw new Error('GRANARY_TEST_REPORT names no file to write the counts to');
    const failures: { name: string; message: string }[] = [];
    const skipped: { name: string; reason: string }[] = [];
    let passed = 0;
    for (const module of modules) {
      // Files that cannot be loaded, and hooks that throw: their tests never ran, so they count as one failure each.
      for (const error of module.errors())
        failures.push({ name: module.relativeModuleId, message: textOf(error) });
      for (const suite of module.children.allSuites()) {
        for (const error of suite.errors())
          failures.push({ name: `${module.relativeModuleId} > ${suite.fullName}`, message: textOf(error) });
      }
      for (const test of module.children.allTests()) {
        const name = `${module.relativeModuleId} > ${test.fullName}`;
        const result = test.result();
        if (result.state === 'passed') passed++;
        else if (result.state === 'failed')
          failures.push({ name, message: result.errors.map(textOf).join('\n') });
        else if (result.state === 'skipped') skipped.push({ name, reason: result.note ?? 'no reason given' });
        else failures.push({ name, message: 'it did not end' });
      }
    }
    for (const error of unhandled) failures.push({ name: 'outside of any test', message: textOf(error) });
    writeFileSync(file, JSON.stringify({ passed, failures, skipped } satisfies Counts));
  }
}

/** Message and place, without the frames of libraries, and what differs. */
function textOf(error: {
  readonly message?: string;
  readonly stack?: string;
  readonly diff?: unknown;
}): string {
  const text = error.stack ?? error.message ?? String(error);
  const lines = text.split('\n').filter((line) => !/^\s+at .*(node_modules|node:internal)/.test(line));
  return [...lines, ...(typeof error.diff === 'string' ? [error.diff] : [])].join('\n');
}
