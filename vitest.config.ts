// Vitest settings: which folders are tests; the emulator and tutorial suites have their own config in test/run.ts.
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    exclude: ['test/emulator/**', 'test/tutorial/**', 'node_modules/**'],
    // A bound on hanging; the longest tests take some seconds on idle cores.
    testTimeout: 180_000,
    maxWorkers: 2,
  },
});
