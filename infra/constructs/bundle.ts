// Bundles all TypeScript Lambdas in one esbuild pass; ten passes of their own take 30 times as long.
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildSync } from 'esbuild';
import type { LambdaName } from '../../functions/core/env.ts';
import { lambdaEnvironment } from '../../functions/core/env.ts';

export const projectFolder: string = fileURLToPath(new URL('../..', import.meta.url));

/** CommonJS packages inside an ES module still call `require` for Node's own modules. */
const banner =
  "import { createRequire as granaryRequire } from 'node:module'; const require = granaryRequire(import.meta.url);";

let bundles: string | undefined;

/**
 * The folder with the bundled `index.mjs` of a Lambda. The first call bundles all of them; they stay until this
 * process ends, which is after the CDK has copied them into its output.
 *
 * @throws Error that names the entry files that are missing
 */
export function bundleOf(lambda: LambdaName): string {
  bundles ??= bundleAll(Object.keys(lambdaEnvironment) as LambdaName[], projectFolder);
  return join(bundles, lambda);
}

/** @param root the folder that holds `functions/<lambda>/index.ts` */
export function bundleAll(lambdas: readonly LambdaName[], root: string): string {
  const entries = lambdas.map((name) => ({ name, file: join(root, 'functions', name, 'index.ts') }));
  const missing = entries.filter(({ file }) => !existsSync(file)).map(({ file }) => relative(root, file));
  if (missing.length > 0) {
    throw new Error(
      `Lambdas without entry file: ${missing.join(', ')}. Each needs one that exports "handler". To synthesise ` +
        "without code, as template tests do, set the context 'aws:cdk:bundling-stacks' to [].",
    );
  }
  const outdir = mkdtempSync(join(tmpdir(), 'granary-bundles-'));
  process.once('exit', () => rmSync(outdir, { recursive: true, force: true }));
  buildSync({
    absWorkingDir: root,
    entryPoints: entries.map(({ name, file }) => ({ in: file, out: join(name, 'index') })),
    outdir,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    minify: true,
    // Stack traces in the logs name our functions and not the minifier's.
    keepNames: true,
    format: 'esm',
    platform: 'node',
    target: 'node24',
    mainFields: ['module', 'main'],
    loader: { '.wasm': 'binary' },
    banner: { js: banner },
    legalComments: 'none',
    logLevel: 'error',
  });
  for (const name of lambdas) addKernel(join(outdir, name), root);
  return outdir;
}

/** The scan kernel is read from the folder of the module that runs it, which inside a bundle is the bundle's. */
function addKernel(bundle: string, root: string): void {
  if (!readFileSync(join(bundle, 'index.mjs')).includes('./kernel.wasm')) return;
  copyFileSync(join(root, 'functions/core/vectors/kernel/kernel.wasm'), join(bundle, 'kernel.wasm'));
}
