// Hedged calls: when one takes longer than nearly all before it, the same is asked once more, and the first answer counts.

/** Answers that a judgement of "late" needs. */
const samplesMin = 20;
const samplesMax = 200;
const lateShare = 0.95;

/** How long answers took, to tell which are late. */
export class Latencies {
  readonly #taken: number[] = [];
  #next = 0;

  add(ms: number): void {
    this.#taken[this.#next] = ms;
    this.#next = (this.#next + 1) % samplesMax;
  }

  /** Milliseconds after which an answer is among the slowest 5 %; undefined while too few are known. */
  late(): number | undefined {
    if (this.#taken.length < samplesMin) return undefined;
    const sorted = [...this.#taken].sort((a, b) => a - b);
    return sorted[Math.floor(sorted.length * lateShare)];
  }
}

/** Waits; the returned function ends the wait without calling. Tests give their own. */
export type Wait = (ms: number, then: () => void) => () => void;

const realWait: Wait = (ms, then) => {
  const timer = setTimeout(then, ms);
  return () => clearTimeout(timer);
};

export interface Hedged<T> {
  readonly value: T;
  /** Whether it was asked twice. */
  readonly hedged: boolean;
}

/**
 * Calls, and calls a second time if the answer is late. A scan is read-only, so it does no harm to have it done twice;
 * the second call reaches another environment of the function than the one that is slow.
 *
 * @throws what the last of the calls threw, when all have failed
 */
export function hedge<T>(
  call: () => Promise<T>,
  latencies: Latencies,
  now: () => number,
  wait: Wait = realWait,
): Promise<Hedged<T>> {
  return new Promise((resolve, reject) => {
    let open = 0;
    let hedged = false;
    let stop: () => void = () => undefined;
    const ask = () => {
      open += 1;
      const begun = now();
      call().then(
        (value) => {
          stop();
          latencies.add(now() - begun);
          resolve({ value, hedged });
        },
        (error: unknown) => {
          open -= 1;
          if (open > 0) return;
          stop();
          reject(error);
        },
      );
    };
    const late = latencies.late();
    if (late !== undefined) {
      stop = wait(late, () => {
        hedged = true;
        ask();
      });
    }
    ask();
  });
}
