// What predictions on labelled examples are worth, at every threshold, and which threshold to take. Pure.

/** One labelled example with what the taxonomy says of it when thresholds are set aside. */
export interface Judged {
  /** Null: out of scope, nothing should be taken over. */
  readonly expected: string | null;
  /** Null: no reference, or nothing to compare. */
  readonly predicted: string | null;
  /** Of the prediction; null without one. */
  readonly score: number | null;
}

export type Objective = 'balanced' | 'f1' | 'precision';

/** What counts at one threshold: predictions with at least this score are accepted. Shares; null: of nothing. */
export interface Point {
  /** Null: every prediction is accepted. */
  readonly threshold: number | null;
  /** Accepted, of those in scope. */
  readonly coverage: number | null;
  /** Right, of all accepted. */
  readonly precision: number | null;
  /** Accepted and right, of those in scope. */
  readonly recall: number | null;
  /** Not accepted, of those out of scope. */
  readonly out_of_scope_refused: number | null;
}

export interface ClassFigures {
  readonly value: string;
  /** Examples that belong to it. */
  readonly support: number;
  readonly predicted: number;
  readonly precision: number | null;
  readonly recall: number | null;
  readonly f1: number | null;
}

export interface EvaluationResult {
  readonly in_scope: number;
  readonly out_of_scope: number;
  readonly accuracy: number | null;
  readonly objective: Objective;
  readonly suggested: Point | null;
  readonly per_class: readonly ClassFigures[];
  readonly confusions: readonly {
    readonly expected: string;
    readonly predicted: string;
    readonly count: number;
  }[];
  readonly curve: readonly (Point & { readonly threshold: number })[];
}

const curvePointsMax = 50;
const confusionsMax = 50;
const classesMax = 500;

const share = (part: number, whole: number): number | null =>
  whole === 0 ? null : Math.round((part / whole) * 1e6) / 1e6;

interface Counts {
  readonly inScope: number;
  readonly outOfScope: number;
  readonly acceptedIn: number;
  readonly acceptedOut: number;
  readonly right: number;
}

function toPoint(threshold: number | null, c: Counts): Point {
  return {
    threshold,
    coverage: share(c.acceptedIn, c.inScope),
    precision: share(c.right, c.acceptedIn + c.acceptedOut),
    recall: share(c.right, c.inScope),
    out_of_scope_refused: share(c.outOfScope - c.acceptedOut, c.outOfScope),
  };
}

const isRight = ({ expected, predicted }: Judged) => expected !== null && expected === predicted;

/** The figures at one threshold. */
export function pointAt(examples: readonly Judged[], threshold: number | null): Point {
  const accepted = examples.filter(
    ({ predicted, score }) => predicted !== null && (threshold === null || score! >= threshold),
  );
  const inScope = examples.filter(({ expected }) => expected !== null).length;
  const acceptedIn = accepted.filter(({ expected }) => expected !== null).length;
  return toPoint(threshold, {
    inScope,
    outOfScope: examples.length - inScope,
    acceptedIn,
    acceptedOut: accepted.length - acceptedIn,
    right: accepted.filter(isRight).length,
  });
}

/** The counts at every distinct score, from the lowest, in one pass over the sorted examples. */
function sweep(examples: readonly Judged[]): { readonly threshold: number; readonly counts: Counts }[] {
  const inScope = examples.filter(({ expected }) => expected !== null).length;
  const outOfScope = examples.length - inScope;
  const scored = examples.filter(({ predicted }) => predicted !== null).sort((a, b) => b.score! - a.score!);
  const found: { threshold: number; counts: Counts }[] = [];
  let acceptedIn = 0;
  let acceptedOut = 0;
  let right = 0;
  for (const [i, example] of scored.entries()) {
    if (example.expected === null) acceptedOut += 1;
    else acceptedIn += 1;
    if (isRight(example)) right += 1;
    if (scored[i + 1]?.score === example.score) continue;
    found.push({
      threshold: example.score!,
      counts: { inScope, outOfScope, acceptedIn, acceptedOut, right },
    });
  }
  return found.reverse();
}

/**
 * How good a threshold is for an objective; higher is better, undefined: it does not fulfil it.
 *
 * - `f1`: 2 P R / (P + R) of accepting right predictions, with P = right / accepted and R = right / in scope.
 * - `balanced`: accepted / in scope plus refused / out of scope (Youden's index, plus one); without examples of one
 *   kind its part counts 0.
 * - `precision`: accepted / in scope among thresholds with P at least the target.
 */
export function worth(counts: Counts, objective: Objective, targetPrecision: number): number | undefined {
  const { inScope, outOfScope, acceptedIn, acceptedOut, right } = counts;
  const accepted = acceptedIn + acceptedOut;
  if (objective === 'f1') return accepted + inScope === 0 ? 0 : (2 * right) / (accepted + inScope);
  if (objective === 'precision') {
    if (accepted === 0 || right / accepted < targetPrecision) return undefined;
    return inScope === 0 ? 0 : acceptedIn / inScope;
  }
  return (
    (inScope === 0 ? 0 : acceptedIn / inScope) +
    (outOfScope === 0 ? 0 : (outOfScope - acceptedOut) / outOfScope)
  );
}

/** Everything about a set of examples. Of thresholds that are equally good the lowest is suggested. */
export function judge(
  examples: readonly Judged[],
  options: { readonly objective?: Objective | undefined; readonly targetPrecision?: number | undefined } = {},
): EvaluationResult {
  const inScope = examples.filter(({ expected }) => expected !== null);
  const objective =
    options.objective ??
    (options.targetPrecision !== undefined
      ? 'precision'
      : inScope.length < examples.length
        ? 'balanced'
        : 'f1');
  const points = sweep(examples);
  let best: { readonly point: (typeof points)[number]; readonly value: number } | undefined;
  for (const point of points) {
    const value = worth(point.counts, objective, options.targetPrecision ?? 1);
    if (value !== undefined && (!best || value > best.value)) best = { point, value };
  }
  const step = Math.max(1, (points.length - 1) / (curvePointsMax - 1));
  const shown = points.filter((_, i) => i === 0 || Math.floor(i / step) > Math.floor((i - 1) / step));
  return {
    in_scope: inScope.length,
    out_of_scope: examples.length - inScope.length,
    accuracy: share(inScope.filter(isRight).length, inScope.length),
    objective,
    suggested: best ? toPoint(best.point.threshold, best.point.counts) : null,
    per_class: classFigures(examples),
    confusions: confusionsOf(inScope),
    curve: shown
      .slice(0, curvePointsMax)
      .map(({ threshold, counts }) => ({ ...toPoint(threshold, counts), threshold })),
  };
}

function classFigures(examples: readonly Judged[]): ClassFigures[] {
  const classes = new Map<string, { support: number; predicted: number; right: number }>();
  const of = (value: string) => {
    const known = classes.get(value) ?? { support: 0, predicted: 0, right: 0 };
    classes.set(value, known);
    return known;
  };
  for (const example of examples) {
    if (example.expected !== null) of(example.expected).support += 1;
    if (example.predicted !== null) of(example.predicted).predicted += 1;
    if (isRight(example)) of(example.predicted!).right += 1;
  }
  return [...classes]
    .map(([value, { support, predicted, right }]) => ({
      value,
      support,
      predicted,
      precision: share(right, predicted),
      recall: share(right, support),
      f1: share(2 * right, support + predicted),
    }))
    .sort((a, b) => b.support - a.support || (a.value < b.value ? -1 : 1))
    .slice(0, classesMax);
}

function confusionsOf(inScope: readonly Judged[]): EvaluationResult['confusions'] {
  const pairs = new Map<string, { expected: string; predicted: string; count: number }>();
  for (const example of inScope) {
    const { expected, predicted } = example;
    if (predicted === null || isRight(example)) continue;
    const key = JSON.stringify([expected, predicted]);
    const known = pairs.get(key) ?? { expected: expected!, predicted, count: 0 };
    pairs.set(key, known);
    known.count += 1;
  }
  return [...pairs.values()]
    .sort(
      (a, b) =>
        b.count - a.count ||
        (a.expected < b.expected ? -1 : a.expected > b.expected ? 1 : a.predicted < b.predicted ? -1 : 1),
    )
    .slice(0, confusionsMax);
}
