// What happened, in a form that a reader can check: hits with scores, topics against the truth, clusters, deliveries.
import { bold, dim, green, heading, red } from './progress.ts';
import type { DemoResult } from './steps.ts';

/** A promise of the demonstration: its figure, and whether it holds. */
export interface Check {
  readonly text: string;
  readonly holds: boolean;
}

export function checksOf(result: DemoResult): Check[] {
  const { searches, topics, clusters, heard, newTopics } = result;
  const onTopic = searches.filter((search) => search.hits[0]?.topic === search.expected).length;
  const named = new Set(
    clusters.filter((c) => c.label !== '' && c.onTopic > c.members / 2).map((c) => c.topic),
  );
  const alerts = heard.filter((one) => one.type === 'alert.triggered');
  const matched = Math.max(
    0,
    ...alerts.map((one) => Number(one.payload.metadata.match_count ?? one.payload.metadata.count ?? 0)),
  );
  const quantum = newTopics.filter((article) => article.assigned === 'quantum').length;
  const share = (part: number, whole: number) =>
    `${part} of ${whole} (${Math.round((100 * part) / Math.max(1, whole))} %)`;
  return [
    {
      text: `the top hit is on topic for ${share(onTopic, searches.length)} of the queries`,
      holds: onTopic === searches.length,
    },
    {
      text: `${share(topics.assigned, topics.total)} of the unlabelled articles got a topic`,
      holds: topics.assigned >= 0.8 * topics.total,
    },
    {
      text: `${share(topics.right, topics.assigned)} of those topics are right`,
      holds: topics.right >= 0.8 * topics.assigned,
    },
    { text: `${named.size} of 6 topics came back as clusters of their own`, holds: named.size >= 4 },
    { text: `the alert told of ${matched} new quantum articles`, holds: matched > 0 && matched === quantum },
    {
      text: `${heard.filter((one) => one.verified).length} of ${heard.length} deliveries carry a valid signature`,
      holds: heard.length >= 2 && heard.every((one) => one.verified),
    },
  ];
}

const marks = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ';

/** A scatter of characters: one letter a cluster, `.` for noise. */
export function drawMap(
  points: DemoResult['points'],
  clusterIds: readonly string[],
  columns = 64,
  rows = 18,
): string {
  if (points.length === 0) return '(no points)';
  const xs = points.map((p) => p.x);
  const ys = points.map((p) => p.y);
  const [left, right, low, high] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const cell = (value: number, from: number, to: number, cells: number) =>
    to === from ? 0 : Math.round(((value - from) / (to - from)) * (cells - 1));
  const grid = Array.from({ length: rows }, () => Array<string>(columns).fill(' '));
  for (const { x, y, cluster } of points) {
    const index = clusterIds.indexOf(cluster);
    const row = grid[rows - 1 - cell(y, low, high, rows)]!;
    row[cell(x, left, right, columns)] = index < 0 ? '.' : (marks[index % marks.length] ?? '?');
  }
  return grid.map((row) => `    ${row.join('').trimEnd()}`).join('\n');
}

function table(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)));
  return rows
    .map(
      (row) =>
        `    ${row.map((text, i) => (i === 0 ? text.padEnd(widths[i]!) : text.padStart(widths[i]!))).join('  ')}`,
    )
    .join('\n');
}

export function printSummary(result: DemoResult): void {
  heading('Search');
  for (const { query, expected, hits } of result.searches) {
    console.log(`  ${bold(query)} ${dim(`(about ${expected})`)}`);
    for (const hit of hits) console.log(`    ${hit.score.toFixed(3)}  ${hit.title} ${dim(`[${hit.topic}]`)}`);
  }

  const { topics } = result;
  heading(`Topics by the taxonomy, at a threshold of ${result.threshold.toFixed(4)} from the labelled third`);
  const names = [...topics.table.keys()].sort();
  const given = [...names, 'none'];
  console.log(
    table([
      ['true topic', ...given],
      ...names.map((name) => [
        name,
        ...given.map((other) => String(topics.table.get(name)?.get(other) ?? 0)),
      ]),
    ]),
  );

  heading(`Clusters, labelled by ${result.labelSource}`);
  for (const [i, cluster] of result.clusters.entries()) {
    console.log(
      `  ${bold(marks[i % marks.length] ?? '?')} ${cluster.label.padEnd(40)} ${String(cluster.members).padStart(3)} articles, ${cluster.onTopic} about ${cluster.topic}`,
    );
  }
  console.log(
    `\n${drawMap(
      result.points,
      result.clusters.map((cluster) => cluster.id),
    )}`,
  );

  heading('New articles after the alert was set');
  for (const { title, assigned, topic } of result.newTopics)
    console.log(`    ${(assigned ?? 'no topic').padEnd(10)} ${title} ${dim(`[${topic}]`)}`);

  heading('Deliveries that the local receiver got');
  for (const one of result.heard) {
    console.log(
      `    ${one.verified ? green('signature valid') : red('signature WRONG')}  ${one.type.padEnd(16)} ${one.payload.subject.id} ${dim(one.id)}`,
    );
  }

  heading('In short');
  for (const check of checksOf(result))
    console.log(`  ${check.holds ? green('yes') : red('NO ')} ${check.text}`);
}
