// A run's result as a file: a line for each document, with its group and its place on the map.
import { createHash } from 'node:crypto';
import { isoTime } from '../../clock.ts';
import type { NsCtx } from '../../context.ts';
import { now } from '../../context.ts';
import { invalid } from '../../errors.ts';
import type { ResultDocument, ResultGroups } from './results.ts';
import { inPieces, noise } from './results.ts';
import type { StoredRun } from './store.ts';
import { runKeys } from './store.ts';

export type ExportFormat = 'jsonl' | 'csv' | 'json';

/** How long the URL of a file reads it. */
const urlSeconds = 3600;
const columns = [
  'document_id',
  'collection_id',
  'cluster_id',
  'cluster_label',
  'probability',
  'x',
  'y',
  'z',
] as const;

type Row = Readonly<Partial<Record<(typeof columns)[number], string | number | null>>>;

export interface ExportedFile {
  readonly documents: number;
  readonly bytes: number;
  readonly url: string;
  readonly expires_at: string;
}

/** Ids of the groups that a label or id names. @throws AppError request_invalid */
function groupsNamed(groups: ResultGroups | undefined, label: string): ReadonlySet<string> {
  const all = groups?.groups ?? [];
  const ids = all
    .filter((group) => group.label === label || group.cluster_id === label)
    .map((group) => group.cluster_id);
  if (label === noise && (groups?.noise_members ?? 0) > 0) ids.push(noise);
  if (ids.length > 0) return new Set([...ids, ...below(all, ids)]);
  throw invalid('request_invalid', [
    {
      type: 'wrong_value',
      location: ['query', 'cluster_label'],
      message: `the run has no group "${label.slice(0, 100)}"`,
      fix: `its groups: ${all
        .slice(0, 20)
        .map((group) => group.label)
        .join(', ')}`,
    },
  ]);
}

/** The groups under some groups: documents are members of the lowest. */
function below(all: ResultGroups['groups'], ids: readonly string[]): string[] {
  const found = new Set(ids);
  // Parents come before their children.
  for (const group of all)
    if (group.parent_cluster_id && found.has(group.parent_cluster_id)) found.add(group.cluster_id);
  return [...found];
}

/** A text that a spreadsheet would read as a formula gets an apostrophe, which makes it text. */
export function harmlessCell(text: string): string {
  return /^[=+\-@\t\r]/.test(text) ? `'${text}` : text;
}

function csvCell(value: string | number | null | undefined): string {
  if (value === undefined || value === null) return '';
  if (typeof value === 'number') return String(value);
  const text = harmlessCell(value);
  return /[",\r\n]|^\s|\s$/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

async function* texts(rows: AsyncIterable<Row>, format: ExportFormat): AsyncGenerator<string> {
  if (format === 'csv') yield `${columns.join(',')}\r\n`;
  if (format === 'json') yield '[';
  let isFirst = true;
  for await (const row of rows) {
    if (format === 'csv') yield `${columns.map((column) => csvCell(row[column])).join(',')}\r\n`;
    else if (format === 'jsonl') yield `${JSON.stringify(row)}\n`;
    else yield `${isFirst ? '\n' : ',\n'}${JSON.stringify(row)}`;
    isFirst = false;
  }
  if (format === 'json') yield '\n]\n';
}

const contentTypes: Readonly<Record<ExportFormat, string>> = {
  jsonl: 'application/x-ndjson',
  csv: 'text/csv; charset=utf-8',
  json: 'application/json',
};

/**
 * Writes the file; the same request writes the same file again.
 *
 * @throws AppError request_invalid: no group has this label
 */
export async function exportResult(
  ctx: NsCtx,
  run: StoredRun,
  groups: ResultGroups | undefined,
  documents: AsyncIterable<readonly ResultDocument[]>,
  options: { readonly format: ExportFormat; readonly label: string | undefined },
): Promise<ExportedFile> {
  const { format, label } = options;
  const wanted = label === undefined ? undefined : groupsNamed(groups, label);
  const labels = new Map((groups?.groups ?? []).map((group) => [group.cluster_id, group.label]));
  let count = 0;
  async function* rows(): AsyncGenerator<Row> {
    for await (const some of documents) {
      for (const { document_id, collection_id, cluster_id, probability, x, y, z } of some) {
        if (wanted && !wanted.has(cluster_id)) continue;
        count += 1;
        yield {
          document_id,
          collection_id,
          cluster_id,
          cluster_label: labels.get(cluster_id) ?? null,
          probability,
          ...(x === undefined ? {} : { x }),
          ...(y === undefined ? {} : { y }),
          ...(z === undefined ? {} : { z }),
        };
      }
    }
  }
  const part = label === undefined ? 'all' : createHash('sha256').update(label).digest('hex').slice(0, 16);
  const key = runKeys.export(ctx, run.run_id, `clusters-${part}.${format}`);
  const { bytes } = await ctx.ports.blobs.putStream(key, inPieces(texts(rows(), format)), {
    contentType: contentTypes[format],
  });
  return {
    documents: count,
    bytes,
    url: await ctx.ports.blobs.presignGet(key, urlSeconds),
    expires_at: isoTime(now(ctx) + urlSeconds * 1000),
  };
}
