// `granary vectors ...`: documents with their vectors out and in, moves between backends, and what an index consists of.
import { closeSync, existsSync, openSync, readSync, renameSync, rmSync, statSync } from 'node:fs';
import { extname } from 'node:path';
import { InvalidArgumentError } from 'commander';
import type * as z from 'zod';
import type { CollectionIndex } from '../../functions/core/resources/collections/contract.ts';
import type {
  VectorIndexMigration,
  VectorIndexState,
} from '../../functions/core/resources/namespaces/contract.ts';
import type { Task } from '../../functions/core/resources/tasks/contract.ts';
import type {
  CollectionExport,
  CollectionImport,
  ImportUpload,
} from '../../functions/core/resources/transfers/contract.ts';
import type { Client } from '../client.ts';
import { download, faultLine, upload } from '../client.ts';
import { CliError } from '../errors.ts';
import { oneOf, wholeNumber } from '../options.ts';
import { byteSize, type Output, table } from '../output.ts';
import type { CommandGroup, Session } from './command.ts';

type Index = z.output<typeof CollectionIndex>;
type State = z.output<typeof VectorIndexState>;

const backends = ['segments', 's3_vectors', 'lancedb'] as const;
const exportFormats = ['parquet', 'json', 'csv'] as const;
const importFormats = ['parquet', 'json'] as const;

const byExtension: Readonly<Record<string, (typeof exportFormats)[number]>> = {
  '.parquet': 'parquet',
  '.jsonl': 'json',
  '.ndjson': 'json',
  '.json': 'json',
  '.csv': 'csv',
};

function json(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new InvalidArgumentError(
      `Not JSON: ${(error as Error).message}. Example: '{"field":"topic","operator":"eq","value":"physics"}'`,
    );
  }
}

const isOver = (run: { readonly status: string }) => !['PENDING', 'PROCESSING'].includes(run.status);

/** `12,345 of 50,000 documents` */
function progressLine(verb: string, { progress }: Pick<CollectionExport, 'progress'>): string {
  const done = progress.done.toLocaleString('en');
  return progress.total === null
    ? `${verb} ...`
    : `${verb} ${done} of ${progress.total.toLocaleString('en')} documents`;
}

function warn(output: Output, answer: { readonly warnings?: readonly string[] | undefined }): void {
  for (const warning of answer.warnings ?? []) output.warn(warning);
}

interface ExportOptions {
  readonly output: string;
  readonly format?: (typeof exportFormats)[number];
  readonly filter?: unknown;
  readonly vectors: boolean;
  readonly fields?: string;
  readonly sample?: number;
  readonly force?: boolean;
}

async function exportCommand(
  { client, output }: Session,
  collection: string,
  options: ExportOptions,
): Promise<void> {
  const file = options.output;
  const format = options.format ?? byExtension[extname(file).toLowerCase()];
  if (format === undefined)
    throw new CliError(
      'usage',
      `"${file}" does not say which format it shall have: name it .parquet, .jsonl or .csv, or give --format`,
    );
  if (existsSync(file) && !options.force)
    throw new CliError('usage', `${file} is there already; --force replaces it`);
  output.progress('exporting ...');
  let run = await client.post<CollectionExport>(client.path('collections', collection, 'export'), {
    format,
    include_vectors: options.vectors,
    ...(options.filter === undefined ? {} : { filters: options.filter }),
    ...(options.fields === undefined
      ? {}
      : { select_fields: options.fields.split(',').map((name) => name.trim()) }),
    ...(options.sample === undefined ? {} : { sample_size: options.sample }),
  });
  if (!isOver(run)) {
    run = await client.poll<CollectionExport>(
      client.path('collections', collection, 'exports', run.export_id),
      isOver,
      (answer) => output.progress(progressLine('exporting', answer)),
    );
  }
  if (run.status === 'FAILED' || run.download_url === null)
    throw new CliError('failed', `the export failed: ${run.error ?? 'it has no file'}`);
  const part = `${file}.part`;
  try {
    const bytes = await download(run.download_url, part, (so) =>
      output.progress(`reading ${byteSize(so)} of ${byteSize(run.file_size_bytes)}`),
    );
    if (bytes !== run.file_size_bytes)
      throw new CliError(
        'unreachable',
        `the file was cut off: ${bytes} of ${run.file_size_bytes} bytes came`,
      );
    renameSync(part, file);
  } finally {
    rmSync(part, { force: true });
  }
  warn(output, run);
  output.result({ ...run, file }, [
    `${run.document_count} documents${options.vectors ? ' with their vectors' : ''} of version ${run.index_version} in ${file} (${byteSize(run.file_size_bytes)})`,
  ]);
}

/** Looks at a file before anything is asked of the service: most mistakes show in its first and last bytes. */
function checkFile(file: string, format: 'parquet' | 'json'): number {
  let bytes: number;
  try {
    const stat = statSync(file);
    if (!stat.isFile()) throw new CliError('usage', `${file} is not a file`);
    bytes = stat.size;
  } catch (error) {
    if (error instanceof CliError) throw error;
    throw new CliError('usage', `${file} cannot be read: ${(error as Error).message}`);
  }
  if (bytes === 0) throw new CliError('usage', `${file} is empty`);
  if (format === 'json') return bytes;
  const handle = openSync(file, 'r');
  try {
    const at = (place: number) => {
      const four = Buffer.alloc(4);
      readSync(handle, four, 0, 4, Math.max(0, place));
      return four.toString('latin1');
    };
    if (at(0) !== 'PAR1')
      throw new CliError(
        'usage',
        `${file} is not a Parquet file: it does not begin with PAR1. Is its format json? --format json`,
      );
    if (bytes < 12 || at(bytes - 4) !== 'PAR1')
      throw new CliError('usage', `${file} was cut off: a whole Parquet file ends with PAR1`);
  } finally {
    closeSync(handle);
  }
  return bytes;
}

interface ImportOptions {
  readonly format?: (typeof importFormats)[number];
  readonly token?: string;
}

async function importCommand(
  { client, output }: Session,
  collection: string,
  file: string,
  options: ImportOptions,
): Promise<void> {
  const named = byExtension[extname(file).toLowerCase()];
  const format = options.format ?? named;
  if (format === 'csv')
    throw new CliError(
      'usage',
      'files of the format csv cannot be imported: they do not say what is a number and what a text. Export as parquet or json',
    );
  if (format === undefined)
    throw new CliError(
      'usage',
      `"${file}" does not say which format it has: --format parquet or --format json`,
    );
  const bytes = checkFile(file, format);
  const place = await client.post<z.output<typeof ImportUpload>>(
    client.path('collections', collection, 'import', 'uploads'),
    { format },
  );
  output.progress(`sending ${byteSize(bytes)} ...`);
  await upload(place.presigned_url, file, place.content_type);
  output.progress('checking rows ...');
  let run = await client.post<CollectionImport>(client.path('collections', collection, 'import'), {
    upload_id: place.upload_id,
    ...(options.token === undefined ? {} : { token: options.token }),
  });
  if (!isOver(run)) {
    run = await client.poll<CollectionImport>(
      client.path('collections', collection, 'imports', run.import_id),
      isOver,
      (answer) => output.progress(progressLine('importing', answer)),
    );
  }
  if (run.status === 'FAILED')
    throw new CliError('failed', `the import failed: ${run.error ?? 'it gives no reason'}`, {
      faults: run.validation_errors.map(faultLine),
    });
  warn(output, run);
  output.result(run, [
    `${run.document_count} documents imported into ${collection}: ${run.documents_added} new, ${run.document_count - run.documents_added} replaced` +
      (run.documents_without_vectors > 0 ? `; ${run.documents_without_vectors} lack a vector` : ''),
  ]);
}

interface FeatureCount {
  readonly collection_id: string;
  readonly feature_uri: string;
  readonly rows: number;
}

const sameFeature = (a: FeatureCount, b: FeatureCount) =>
  a.collection_id === b.collection_id && a.feature_uri === b.feature_uri;

/** The vectors that searches see, by collection and feature; from the segments, which every backend is a copy of. */
async function countLive(client: Client, state: State): Promise<FeatureCount[]> {
  const counts: FeatureCount[] = [];
  for (const id of new Set(state.features.map(({ collection_id }) => collection_id))) {
    const index = await client.get<Index>(`${client.path('collections', id, 'index')}?live_rows=true`);
    for (const { feature_uri, live_rows } of index.features) {
      if (
        state.features.some((one) =>
          sameFeature({ ...one, rows: 0 }, { collection_id: id, feature_uri, rows: 0 }),
        )
      )
        counts.push({ collection_id: id, feature_uri, rows: live_rows ?? 0 });
    }
  }
  return counts;
}

/** What a backend holds of a feature: null where it holds none, for it cannot (another metric): the segments are scanned. */
function heldBy(state: State, backend: string, one: FeatureCount): number | null {
  const feature = state.features.find((other) => sameFeature({ ...other, rows: 0 }, one));
  return feature?.copies.find((copy) => copy.backend === backend)?.rows ?? null;
}

interface MigrateOptions {
  readonly to: (typeof backends)[number];
  readonly wait?: boolean;
}

async function migrateCommand({ client, output }: Session, options: MigrateOptions): Promise<void> {
  const statePath = client.path('vector-index');
  const before = await client.get<State>(statePath);
  const countsBefore = await countLive(client, before);
  const begun = await client.post<z.output<typeof VectorIndexMigration>>(`${statePath}/migrate`, {
    backend: options.to,
  });
  const sum = (counts: readonly { readonly rows: number }[]) =>
    counts.reduce((all, { rows }) => all + rows, 0);
  if (!options.wait) {
    output.result({ ...begun, vectors_before: sum(countsBefore) }, [
      `${sum(countsBefore)} vectors are being moved from ${begun.from} to ${begun.to}; task ${begun.task_id}`,
    ]);
    return;
  }
  const task = await client.poll<Task>(
    `/v1/tasks/${encodeURIComponent(begun.task_id)}`,
    isOver,
    ({ status }) =>
      output.progress(`moving ${sum(countsBefore)} vectors to ${options.to}: ${status.toLowerCase()}`),
  );
  if (task.status !== 'COMPLETED')
    throw new CliError('failed', `the move ended as ${task.status}: ${task.error ?? 'it gives no reason'}`);
  const after = await client.get<State>(statePath);
  const live = await countLive(client, after);
  const rows = live.map((one) => {
    const was = countsBefore.find((other) => sameFeature(other, one))?.rows ?? 0;
    const held = options.to === 'segments' ? one.rows : heldBy(after, options.to, one);
    return { ...one, before: was, after: held, matches: held === null || held === was };
  });
  const lost = countsBefore.filter((one) => !live.some((other) => sameFeature(other, one)));
  const isRight = after.backend === options.to && rows.every(({ matches }) => matches) && lost.length === 0;
  output.result(
    { from: begun.from, to: begun.to, task_id: begun.task_id, matches: isRight, features: rows },
    [
      ...table(
        ['collection', 'feature', 'before', 'after', ''],
        rows.map((one) => [
          one.collection_id,
          one.feature_uri,
          one.before,
          one.after,
          one.after === null ? `not held by ${options.to}: scanned` : one.matches ? 'equal' : 'DIFFERENT',
        ]),
      ),
    ],
  );
  if (isRight) return;
  const why =
    after.backend === options.to
      ? 'the counts before and after the move differ. Were documents written meanwhile? Searches are right in any case; see `granary vectors stats`'
      : `the namespace uses ${after.backend}, not ${options.to}`;
  throw new CliError('mismatch', why);
}

async function statsCommand(
  { client, output }: Session,
  collection: string,
  options: { readonly live?: boolean },
): Promise<void> {
  const query = options.live ? '?live_rows=true' : '';
  const index = await client.get<Index>(client.path('collections', collection, 'index') + query);
  const { backend, features } = await client.get<State>(client.path('vector-index'));
  const copies = features.flatMap((one) =>
    one.collection_id === index.collection_id
      ? one.copies.map((copy) => ({ feature_uri: one.feature_uri, ...copy }))
      : [],
  );
  output.result({ ...index, backend, copies }, [
    `version ${index.version}, ${index.document_count} documents, backend ${backend}`,
    ...table(
      ['feature', 'dims', 'metric', 'storage', 'segments', 'rows', ...(options.live ? ['live'] : []), 'size'],
      index.features.map((one) => [
        one.feature_uri,
        one.dims,
        one.metric,
        one.storage ?? '-',
        one.segments,
        one.rows,
        ...(options.live ? [one.live_rows] : []),
        byteSize(one.bytes),
      ]),
    ),
    ...copies.map(
      (copy) =>
        `copy in ${copy.backend}: ${copy.rows} vectors of ${copy.feature_uri} as of version ${copy.synced_version}${copy.error === null ? '' : ` (${copy.error})`}`,
    ),
  ]);
}

/** `granary vectors` */
export const vectors: CommandGroup = (program, run) => {
  const group = program
    .command('vectors')
    .description('documents with their vectors: export, import, move, look');
  group
    .command('export')
    .description('write the documents of a collection, with their vectors, to a file')
    .argument('<collection>', 'id or name')
    .requiredOption('-o, --output <file>', 'where to; its ending says the format: .parquet, .jsonl, .csv')
    .option('--format <format>', exportFormats.join(', '), oneOf(exportFormats))
    .option(
      '--filter <json>',
      'only documents that match, such as {"field":"topic","operator":"eq","value":"physics"}',
      json,
    )
    .option('--no-vectors', 'documents without their vectors')
    .option('--fields <names>', 'only these fields, separated by commas')
    .option('--sample <n>', 'so many documents, chosen evenly', wholeNumber())
    .option('--force', 'replace a file that is there')
    .action(run(exportCommand));
  group
    .command('import')
    .description('restore documents with their vectors from a file; ids are kept, what is there is replaced')
    .argument('<collection>', 'id or name')
    .argument('<file>', 'Parquet, or lines of JSON')
    .option('--format <format>', importFormats.join(', '), oneOf(importFormats))
    .option('--token <text>', 'names this import: the same token again changes nothing')
    .action(run(importCommand));
  group
    .command('migrate')
    .description('move the vectors of the namespace to another backend; with --wait the counts must match')
    .requiredOption('--to <backend>', backends.join(', '), oneOf(backends))
    .option('--wait', 'until it is done, and compare the counts')
    .action(run(migrateCommand));
  group
    .command('stats')
    .description('versions, files, rows and bytes of a collection')
    .argument('<collection>', 'id or name')
    .option('--live', 'count the vectors that searches see')
    .action(run(statsCommand));
};
