// Builds functions/core/vectors/kernel/kernel.wasm from its AssemblyScript. Run by `npm run kernel` after a change there;
// the file is committed, so nothing else needs the compiler, and a test compares it with a fresh build.
import { writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import asc from 'assemblyscript/asc';

const projectFolder = fileURLToPath(new URL('..', import.meta.url));
const kernelFolder = 'functions/core/vectors/kernel';

/**
 * Compiles the kernel: plain simd128, no threads, no runtime, its memory given by whoever makes an instance.
 *
 * @returns the bytes of the module, the same for the same sources and compiler on every machine
 * @throws Error with what the compiler says
 */
export async function compileKernel(): Promise<Uint8Array> {
  const files = new Map<string, Uint8Array>();
  const { error, stderr } = await asc.main(
    [
      `${kernelFolder}/assembly/index.ts`,
      '--baseDir',
      projectFolder,
      '--outFile',
      'kernel.wasm',
      '--runtime',
      'stub',
      '-O3',
      '--noAssert',
      '--enable',
      'simd',
      '--importMemory',
      '--noExportMemory',
    ],
    {
      writeFile: (name, contents) => {
        files.set(name, typeof contents === 'string' ? new TextEncoder().encode(contents) : contents);
      },
    },
  );
  const wasm = files.get('kernel.wasm');
  if (error !== null || wasm === undefined) {
    throw new Error(`The kernel does not compile:\n${stderr.toString()}`, { cause: error });
  }
  return wasm;
}

if (import.meta.main) {
  const file = `${projectFolder}${kernelFolder}/kernel.wasm`;
  const wasm = await compileKernel();
  writeFileSync(file, wasm);
  console.log(`${file}: ${wasm.length} bytes`);
}
