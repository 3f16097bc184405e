// `granary plugin logs`: what plugins printed, warned of and failed at in batches, newest first.
import type { BatchLog } from '../../functions/core/resources/batches/contract.ts';
import type { Client } from '../client.ts';
import type { Session } from '../commands/command.ts';
import { CliError } from '../errors.ts';
import { block, count, cut, indented } from './words.ts';

export interface LogsOptions {
  readonly batch?: string;
  readonly bucket?: string;
  readonly failed?: boolean;
  readonly object?: string;
  readonly limit: number;
}

interface Page {
  readonly results: readonly BatchLog[];
  readonly warnings?: readonly string[] | undefined;
  readonly pagination: { readonly next_cursor: string | null };
}

const pageMax = 100;

/** Entries in the order of the service, until there are enough. */
async function read(
  client: Client,
  path: string,
  { failed, object, limit: most }: LogsOptions,
  wanted: (entry: BatchLog) => boolean,
  warn: (text: string) => void,
): Promise<BatchLog[]> {
  const found: BatchLog[] = [];
  let cursor: string | null = null;
  do {
    const query = new URLSearchParams({
      limit: String(Math.min(pageMax, most)),
      include_total: 'false',
      ...(failed ? { failed_only: 'true' } : {}),
      ...(object === undefined ? {} : { object_id: object }),
      ...(cursor === null ? {} : { cursor }),
    });
    const page: Page = await client.get<Page>(`${path}?${query}`);
    page.warnings?.forEach(warn);
    found.push(...page.results.filter(wanted));
    cursor = page.pagination.next_cursor;
  } while (cursor !== null && found.length < most);
  return found.slice(0, most);
}

/** @throws CliError usage, and those of the client */
export async function logsCommand(
  { client, output }: Session,
  plugin: string | undefined,
  options: LogsOptions,
): Promise<void> {
  const { batch, bucket } = options;
  if ((batch === undefined) !== (bucket === undefined))
    throw new CliError('usage', 'a batch is named together with its bucket: --batch BATCH --bucket BUCKET');
  if (plugin === undefined && batch === undefined)
    throw new CliError(
      'usage',
      'whose logs? granary plugin logs my_plugin_1_0_0, or --batch BATCH --bucket BUCKET',
    );
  const path =
    batch === undefined
      ? client.path('plugins', plugin!, 'logs')
      : client.path('buckets', bucket!, 'batches', batch, 'logs');
  // With both, the batch's entries of that plugin.
  const isWanted = (entry: BatchLog) => batch === undefined || plugin === undefined || isOf(entry, plugin);
  output.progress('reading ...');
  const entries = await read(client, path, options, isWanted, (text) => output.warn(text));
  output.result(
    entries,
    entries.length > 0
      ? entries.flatMap((entry, i) => (i === 0 ? entryLines(entry) : ['', ...entryLines(entry)]))
      : [
          options.failed
            ? 'no entry with a failed row'
            : 'no entry: no batch ran the plugin in the last seven days, or its chunks are not finished yet',
        ],
  );
}

const isOf = (entry: BatchLog, plugin: string) =>
  entry.plugin_id === plugin || entry.plugin_id === plugin.replace('@', '_').replaceAll('.', '_');

function entryLines(entry: BatchLog): string[] {
  const ms = entry.timings.run_ms;
  const head =
    `${entry.created_at}  ${block(entry.plugin_id)}  batch ${entry.batch_id}, attempt ${entry.attempt}, ` +
    `collection ${entry.collection_id}, chunk ${entry.chunk}: ${count(entry.rows, 'row')}, ${entry.failed} failed` +
    (ms === undefined ? '' : `, ${ms.toFixed(0)} ms`);
  const lines = [head];
  for (const warning of entry.warnings) lines.push(`  warning: ${cut(block(warning), 1000)}`);
  for (const { object_id, property, code, message, traceback } of entry.failures) {
    lines.push(`  ${object_id}${property === null ? '' : ` (${property})`}: ${code}: ${block(message)}`);
    if (traceback) lines.push(...indented(traceback, '      '));
  }
  const untold = entry.failed - entry.failures.length;
  if (untold > 0)
    lines.push(`  ... ${count(untold, 'further failed row')}: GET .../batches/${entry.batch_id}/failures`);
  if (entry.logs.trim() !== '') lines.push(...indented(entry.logs, '  | '));
  return lines;
}
