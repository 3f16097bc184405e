// Vitest settings of the suites against a deployed stack; test/run.ts deploys it and names it in GRANARY_TEST_OUTPUTS.
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  root: fileURLToPath(new URL('../..', import.meta.url)),
  test: {
    include: ['test/emulator/**/*.test.ts', 'test/tutorial/**/*.test.ts'],
    // Bounds on hanging; nearly all tests end within seconds.
    testTimeout: 240_000,
    hookTimeout: 240_000,
    maxWorkers: 2,
  },
});
