// Figures as they are printed and written: a name, a value with its unit, and what is aimed at.

export interface Figure {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  /** What the project aims at; null where the figure only tells. */
  readonly goal: number | null;
  readonly better: 'lower' | 'higher';
  /** How many measurements the value is made of. */
  readonly runs: number;
}

/** Enough digits to compare by, no more. */
export function rounded(value: number): number {
  return Number(value.toPrecision(4));
}

const reaches = ({ value, goal, better }: Figure): string =>
  goal === null ? '' : (better === 'lower' ? value <= goal : value >= goal) ? 'yes' : 'no';

/** A table for a person. */
export function tableOf(figures: readonly Figure[]): string {
  const rows = [
    ['figure', 'value', 'unit', 'goal', 'reached', 'runs'],
    ...figures.map((figure) => [
      figure.name,
      rounded(figure.value).toLocaleString('en-US', { maximumFractionDigits: 3 }),
      figure.unit,
      figure.goal === null ? '' : `${figure.better === 'lower' ? '<=' : '>='} ${figure.goal}`,
      reaches(figure),
      String(figure.runs),
    ]),
  ];
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)));
  const numbers = new Set([1, 5]);
  return rows
    .map((row) =>
      row
        .map((text, i) => (numbers.has(i) ? text.padStart(widths[i]!) : text.padEnd(widths[i]!)))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}
