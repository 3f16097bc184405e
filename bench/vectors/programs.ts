// The programs of one data set: started one after the other, ended together.
import { paddedDims } from '../../functions/core/vectors/vector.ts';
import type { Storage } from './build-index.ts';
import type { Program } from './contestant.ts';
import { Contestant, nodeProgram } from './contestant.ts';
import type { DataSet } from './data-file.ts';
import { fileOf } from './make-data.ts';

export class Programs {
  readonly #running: Contestant[] = [];

  async start(program: Program): Promise<Contestant> {
    const contestant = await Contestant.start(program);
    this.#running.push(contestant);
    return contestant;
  }

  async end(): Promise<void> {
    await Promise.all(this.#running.splice(0).map((contestant) => contestant.end()));
  }
}

/**
 * Granary's search over an index.
 *
 * @param rerankFrom `memory`: the arena has room for the vectors beside their codes; `store`: those that are scored
 *   again are read from the segment each time
 */
export function ourProgram(
  set: DataSet,
  index: string,
  storage: Storage,
  rows: number = set.rows,
  rerankFrom: 'memory' | 'store' = 'memory',
): Program {
  return nodeProgram('ours.ts', [
    fileOf(set),
    index,
    String(arenaMegabytes(rows, set.dims, storage, rerankFrom)),
  ]);
}

/** Room for all segments of an index, and a little for the gaps between slots. */
export function arenaMegabytes(
  rows: number,
  dims: number,
  storage: Storage,
  rerankFrom: 'memory' | 'store' = 'memory',
): number {
  const vectors = paddedDims(dims) * 4 + 4;
  const codes = paddedDims(dims) + 4 * 4;
  const perRow = storage === 'f32' ? vectors : rerankFrom === 'memory' ? codes + vectors : codes;
  return Math.ceil((rows * perRow) / 2 ** 20) + 4;
}
