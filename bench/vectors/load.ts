// What a cold load costs: a segment of 64 MB from the emulator's S3 into the memory of the kernel, verified, ready to scan.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3';
import { S3Blobs } from '../../functions/core/aws/s3.ts';
import { encodeSegment } from '../../functions/core/vectors/encode-segment.ts';
import { openStoredSegment } from '../../functions/core/vectors/open-segment.ts';
import type { SegmentDescription } from '../../functions/core/vectors/segment-format.ts';
import { makeVectorMemory, type VectorMemory } from '../../functions/core/vectors/vector-memory.ts';
import { localAccessKey, localRegion, startEmulator, stopEmulator } from '../../local/emulator.ts';
import { median } from '../measure.ts';

export interface LoadFigures {
  /** Median of loads into memory that was never written: the first touch of each page is part of it. */
  readonly cpuMsPerMb: number;
  /** The same loads, milliseconds each. */
  readonly wallMs: number;
  readonly runs: number;
  /** Median of loads that take the place of another segment, so that the pages are there. */
  readonly recycledCpuMsPerMb: number;
  /** Megabytes (2^20 bytes) of one load. */
  readonly megabytes: number;
}

const dims = 384;
const rows = Math.floor(2 ** 26 / (4 * dims));
/** Loads that do not count: connections are made and code gets compiled. */
const warmLoads = 2;

/** A segment of as many random vectors as 64 MB hold, without codes, so that a scan needs all of it. */
function makeSegment() {
  let state = 1;
  const vectors = Float32Array.from({ length: rows * dims }, () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) | 0;
    return state / 2 ** 31;
  });
  return encodeSegment({
    kind: 'data',
    dims,
    metric: 'cosine',
    codes: false,
    rows: Array.from({ length: rows }, (_, i) => ({
      id: `doc_${i}`,
      vector: vectors.subarray(i * dims, (i + 1) * dims),
    })),
  });
}

interface Load {
  readonly cpuMs: number;
  readonly wallMs: number;
}

/** @param name another one each time: what was loaded under a name is kept */
async function load(
  blobs: S3Blobs,
  memory: VectorMemory,
  description: SegmentDescription,
  name: string,
): Promise<Load> {
  const source = {
    readInto: (at: number, target: Uint8Array) => blobs.readInto('segment.vseg', at, target),
  };
  const cpu = process.cpuUsage();
  const begin = performance.now();
  const segment = await openStoredSegment(source, name, description);
  const wasCold = await segment.vectors?.scan(memory, (resident, cold) => resident !== undefined && cold);
  const wallMs = performance.now() - begin;
  const { user, system } = process.cpuUsage(cpu);
  if (!wasCold) throw new Error(`${name} was not loaded`);
  return { cpuMs: (user + system) / 1000, wallMs };
}

/**
 * Loads a segment again and again from an emulator of its own, as the query function does: request, bytes, checksums,
 * header, ids. What counts is the CPU of this process; the emulator is another one.
 *
 * @param runs loads of each kind that count
 */
export async function measureLoad(runs = 8): Promise<LoadFigures> {
  const stateFolder = mkdtempSync(join(tmpdir(), 'granary-bench-load-'));
  const cleanUp = async () => {
    await stopEmulator(stateFolder);
    rmSync(stateFolder, { recursive: true, force: true });
  };
  try {
    const { endpoint } = await startEmulator({ stateFolder, port: 0, leash: true });
    const client = new S3Client({
      endpoint,
      region: localRegion,
      forcePathStyle: true,
      credentials: { accessKeyId: localAccessKey, secretAccessKey: 'test' },
    });
    await client.send(new CreateBucketCommand({ Bucket: 'granary-bench-load' }));
    const blobs = new S3Blobs('granary-bench-load', client);
    const { bytes, description } = makeSegment();
    await blobs.put('segment.vseg', bytes);
    const megabytes = bytes.length / 2 ** 20;
    // The slots of all first loads lie side by side; with one more load the first of them is given up.
    const slots = warmLoads + runs;
    const memory = makeVectorMemory(slots * Math.ceil(bytes.length / 2 ** 16) * 2 ** 16);
    const loads: Load[] = [];
    for (let i = 0; i < slots + runs; i++) loads.push(await load(blobs, memory, description, `load ${i}`));
    const [fresh, recycled] = [loads.slice(warmLoads, slots), loads.slice(slots)];
    const perMb = (some: readonly Load[]) => median(some.map(({ cpuMs }) => cpuMs)) / megabytes;
    return {
      cpuMsPerMb: perMb(fresh),
      wallMs: median(fresh.map(({ wallMs }) => wallMs)),
      runs,
      recycledCpuMsPerMb: perMb(recycled),
      megabytes,
    };
  } finally {
    await cleanUp();
  }
}
