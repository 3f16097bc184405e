// `granary plugin test`: the plugin over rows of a file, by the very runner that batches use, and what came of it.
import { readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { CliError } from '../errors.ts';
import { type Output, table } from '../output.ts';
import { type CheckedPlugin, checkPlugin, findingLines, showWarnings } from './check.ts';
import { askPython, findPython, functionFolder } from './python.ts';
import { fileProperties, readRows, rowsOfTexts, type TestRow } from './rows.ts';
import { nameOf, type PythonOptions } from './validate.ts';
import { pluginId } from './wire.ts';
import { block, count, cut, indented, shown } from './words.ts';

type Environment = Readonly<Record<string, string | undefined>>;

/** Megabytes for the plugin in each memory class, as on AWS. */
export const memoryClasses = { small: 256, standard: 1024, large: 2048 } as const;

export type MemoryClass = keyof typeof memoryClasses;

export interface TestOptions extends PythonOptions {
  readonly data?: string;
  readonly text?: readonly string[];
  readonly rows: number;
  readonly column?: string;
  readonly realtime?: boolean;
  /** One request to realtime.py, as it is; instead of rows. */
  readonly inputs?: Readonly<Record<string, unknown>>;
  readonly parameters?: unknown;
  readonly secretsFile?: string;
  readonly limitMemory?: MemoryClass;
  /** Seconds. */
  readonly timeout: number;
  /** So many rows are printed. */
  readonly show: number;
}

/** The runner's answer, as far as it is used here. */
interface Reply {
  readonly outputs?: readonly {
    readonly row: number;
    readonly ordinal: number;
    readonly columns: Readonly<Record<string, unknown>>;
    readonly features: Readonly<Record<string, number | null>>;
  }[];
  readonly dropped?: readonly number[];
  readonly vectors?: Readonly<
    Record<string, { readonly dims: number; readonly count: number; readonly data_base64: string }>
  >;
  readonly failures?: readonly {
    readonly row: number;
    readonly code: string;
    readonly message: string;
    readonly traceback?: string | null;
  }[];
  readonly warnings?: readonly string[];
  readonly logs: string;
  readonly timings: Readonly<Record<string, number>>;
  /** Of the operation realtime. */
  readonly answer?: unknown;
  readonly error?: { readonly code: string; readonly message: string; readonly traceback?: string | null };
}

interface Vector {
  readonly dims: number;
  readonly norm: number;
  readonly values: Float32Array;
}

interface TestOutput {
  readonly row: number;
  readonly columns: Readonly<Record<string, unknown>>;
  readonly vectors: ReadonlyMap<string, Vector | null>;
}

function propertiesOf(plugin: CheckedPlugin): string[] {
  const { input_mappings: mappings } = plugin.manifest!;
  return [...new Set(Array.isArray(mappings) ? (mappings as string[]) : Object.values(mappings))].filter(
    (name): name is string => typeof name === 'string',
  );
}

/** `{"NAME": "value"}`, or lines `NAME=value`. @throws CliError usage, which never repeats a value */
function readSecrets(file: string): Record<string, string> {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw new CliError('usage', `${file} cannot be read: ${(error as Error).message}`);
  }
  const secrets: Record<string, string> = {};
  if (text.trimStart().startsWith('{')) {
    let parsed: unknown;
    try {
      parsed = JSON.parse(text);
    } catch {
      throw new CliError('usage', `${file} begins as JSON and is none. Right form: {"NAME": "value"}`);
    }
    for (const [name, value] of Object.entries(parsed as Record<string, unknown>)) {
      if (typeof value !== 'string') throw new CliError('usage', `${file}: the secret ${name} is not a text`);
      secrets[name] = value;
    }
    return secrets;
  }
  for (const [i, line] of text.split(/\r?\n/).entries()) {
    if (/^\s*(#|$)/.test(line)) continue;
    const found = /^\s*(?:export\s+)?([A-Z][A-Z0-9_]{0,63})=(.*)$/.exec(line);
    if (!found) throw new CliError('usage', `${file}, line ${i + 1} is not NAME=value`);
    secrets[found[1]!] = found[2]!.replace(/^(["'])(.*)\1$/, '$2');
  }
  return secrets;
}

/** Those that the manifest names, since no others are given to it on AWS. */
function secretsFor(plugin: CheckedPlugin, file: string | undefined, output: Output): Record<string, string> {
  const given = file === undefined ? {} : readSecrets(file);
  const declared = plugin.manifest!.secrets ?? [];
  const missing = declared.filter((name) => !Object.hasOwn(given, name));
  if (missing.length > 0)
    output.warn(
      `the manifest names the secrets ${missing.join(', ')}; --secrets-file gives them a value here`,
    );
  const unknown = Object.keys(given).filter((name) => !declared.includes(name));
  if (unknown.length > 0)
    output.warn(
      `"secrets" in manifest.py does not name ${unknown.join(', ')}, so the plugin does not get them`,
    );
  return Object.fromEntries(
    declared.filter((name) => Object.hasOwn(given, name)).map((name) => [name, given[name]!]),
  );
}

function wireRow(row: TestRow, i: number, plugin: CheckedPlugin) {
  return {
    row: i,
    data: row.data,
    document_id: `doc_local${i}`,
    object_id: `obj_local${i}`,
    blob_id: `blob_local${i}`,
    blob_property: row.property,
    blob_type: row.type,
    collection_id: 'col_local',
    feature_extractor_id: pluginId(plugin),
    mime_type: row.mimeType,
    size_bytes: row.bytes,
  };
}

/** @throws CliError faulty if the plugin is unsound or a row failed, after all of it was printed */
export async function testCommand(
  output: Output,
  env: Environment,
  dir: string,
  options: TestOptions,
): Promise<void> {
  const python = findPython(options.python, env);
  output.progress('checking ...');
  const plugin = await checkPlugin(dir, python);
  showWarnings(output, plugin);
  if (plugin.errors.length > 0)
    throw new CliError('faulty', `${nameOf(plugin)} has ${count(plugin.errors.length, 'fault')}`, {
      faults: plugin.errors.flatMap(findingLines),
    });
  if ((options.realtime || options.inputs !== undefined) && !plugin.hasRealtime)
    throw new CliError('usage', `${nameOf(plugin)} has no realtime.py; its batch steps are run on rows`);
  const { compute_profile: profile, features } = plugin.manifest!;
  const memory = options.limitMemory ?? (profile.memory_class as MemoryClass | undefined) ?? 'standard';
  const event = {
    plugin: {
      plugin_id: pluginId(plugin),
      sha256: plugin.sha256,
      root: plugin.root,
      extractor_id: pluginId(plugin),
    },
    features: features.map((one) => ({ name: one.feature_name, dims: one.embedding_dim })),
    parameters: options.parameters ?? {},
    batch_size: Number(profile.batch_size ?? 64),
    secrets: secretsFor(plugin, options.secretsFile, output),
    limits: { memory_mb: memoryClasses[memory] ?? memoryClasses.standard },
    deadline_ms: options.timeout * 1000,
  };
  const run = async (events: readonly Record<string, unknown>[], rows: readonly TestRow[]) => {
    const { replies } = await askPython<{ readonly replies: readonly Reply[] }>(
      python,
      {
        operation: 'run',
        folder: functionFolder('plugin-runner'),
        archive_base64: plugin.archive.toString('base64'),
        blobs: Object.fromEntries(
          rows.flatMap(({ file }, i) => (file === undefined ? [] : [[String(i), file]])),
        ),
        events,
      },
      // As the function that such plugins run in on AWS.
      profile.resource_type === 'api' ? { PLUGIN_EGRESS: 'on' } : {},
    );
    return replies;
  };
  if (options.inputs !== undefined) {
    if (options.data !== undefined || options.text !== undefined)
      throw new CliError('usage', '--inputs asks realtime.py one thing; --data and --text are rows');
    output.progress('asking realtime.py ...');
    const [reply] = await run([{ ...event, operation: 'realtime', inputs: options.inputs }], []);
    return reportAnswer(output, plugin, reply!);
  }
  const read = readInput(options, propertiesOf(plugin));
  if (read.rows.length === 0) throw new CliError('usage', `${options.data} holds no row`);
  const rows = read.rows.map((row, i) => wireRow(row, i, plugin));
  output.progress(`running ${count(read.rows.length, 'row')} ...`);
  const [batch, realtime] = await run(
    [
      { ...event, operation: 'run', rows },
      ...(options.realtime ? [{ ...event, operation: 'embed', realtime: true, rows }] : []),
    ],
    read.rows,
  );
  report(output, plugin, read, batch!, realtime, options);
}

/** What realtime.py answered to `--inputs`. */
function reportAnswer(output: Output, plugin: CheckedPlugin, reply: Reply): void {
  output.result({ plugin_id: pluginId(plugin), ...reply, error: reply.error ?? null }, [
    ...(reply.error ? [] : [cut(JSON.stringify(reply.answer) ?? 'null', 2000)]),
    ...replyLines(reply, 'realtime: ', [], 0),
  ]);
  if (reply.error)
    throw new CliError('faulty', `${nameOf(plugin)} failed: ${block(reply.error.message)}`, {
      code: reply.error.code,
    });
}

function readInput(options: TestOptions, properties: readonly string[]) {
  if (options.text !== undefined && options.data !== undefined)
    throw new CliError('usage', '--data or --text, not both');
  if (options.text !== undefined) return { rows: rowsOfTexts(options.text, properties), isCut: false };
  if (options.data === undefined)
    throw new CliError('usage', 'which rows? --data sample.jsonl (or .csv), or --text "..."');
  return readRows(options.data, properties, {
    rows: options.rows,
    ...(options.column === undefined ? {} : { column: options.column }),
  });
}

/** The vectors of a feature, in the order of their places. */
function vectorsOf(reply: Reply, feature: string): Vector[] {
  const found = reply.vectors?.[feature];
  if (found === undefined) return [];
  const bytes = Buffer.from(found.data_base64, 'base64');
  return Array.from({ length: found.count }, (_, i) => {
    const values = new Float32Array(found.dims);
    for (let j = 0; j < found.dims; j++) values[j] = bytes.readFloatLE((i * found.dims + j) * 4);
    return { dims: found.dims, norm: Math.hypot(...values), values };
  });
}

function outputsOf(reply: Reply, features: readonly string[]): TestOutput[] {
  const vectors = new Map(features.map((name) => [name, vectorsOf(reply, name)]));
  return (reply.outputs ?? []).map((one) => ({
    row: one.row,
    columns: one.columns,
    vectors: new Map(
      features.map((name) => {
        const place = one.features[name];
        return [name, place === null || place === undefined ? null : (vectors.get(name)![place] ?? null)];
      }),
    ),
  }));
}

const cosine = (a: Float32Array, b: Float32Array) => {
  let dot = 0;
  for (const [i, value] of a.entries()) dot += value * b[i]!;
  return dot / (Math.hypot(...a) * Math.hypot(...b));
};

/**
 * Whether queries land where documents do: the cosine of what realtime.py and the batch steps make of each row.
 *
 * @returns the least, null where no row has both
 */
function agreement(
  batch: readonly TestOutput[],
  realtime: readonly TestOutput[],
  feature: string,
): number | null {
  let least: number | null = null;
  for (const one of batch) {
    const a = one.vectors.get(feature);
    const b = realtime.find(({ row }) => row === one.row)?.vectors.get(feature);
    if (a && b) least = Math.min(least ?? 1, cosine(a.values, b.values));
  }
  return least;
}

function report(
  output: Output,
  plugin: CheckedPlugin,
  read: { readonly rows: readonly TestRow[]; readonly isCut: boolean },
  batch: Reply,
  realtime: Reply | undefined,
  options: TestOptions,
): void {
  const features = plugin.manifest!.features.map(({ feature_name }) => feature_name);
  const outputs = outputsOf(batch, features);
  const answers = realtime === undefined ? undefined : outputsOf(realtime, features);
  const agreements = new Map(
    answers === undefined ? [] : features.map((name) => [name, agreement(outputs, answers, name)]),
  );
  const replies = [batch, ...(realtime === undefined ? [] : [realtime])];
  const failures = replies.flatMap((reply) => reply.failures ?? []);
  const source = options.data === undefined ? 'the command line' : basename(options.data);
  const lines: string[] = [
    `${nameOf(plugin)} over ${count(read.rows.length, 'row')} of ${source}${read.isCut ? ', which has more (--rows)' : ''}`,
  ];
  if (outputs.length > 0) lines.push('', ...resultTable(read.rows, outputs, features, options.show));
  for (const name of features) lines.push(...featureLines(name, outputs, agreements));
  if (batch.dropped && batch.dropped.length > 0)
    lines.push(`no output of ${batch.dropped.length === 1 ? 'row' : 'rows'} ${batch.dropped.join(', ')}`);
  for (const [i, reply] of replies.entries())
    lines.push(...replyLines(reply, i === 0 ? '' : 'realtime: ', read.rows, options.show));
  output.result(
    {
      plugin_id: pluginId(plugin),
      rows: read.rows.map((row, i) => ({
        row: i,
        origin: row.origin,
        property: row.property,
        data: row.data,
      })),
      outputs: outputs.map((one) => jsonOutput(one)),
      dropped: batch.dropped ?? [],
      failures: batch.failures ?? [],
      warnings: batch.warnings ?? [],
      logs: batch.logs,
      timings: batch.timings,
      error: batch.error ?? null,
      realtime:
        realtime === undefined
          ? null
          : {
              outputs: answers!.map((one) => jsonOutput(one)),
              cosine_to_batch: Object.fromEntries(agreements),
              failures: realtime.failures ?? [],
              warnings: realtime.warnings ?? [],
              logs: realtime.logs,
              timings: realtime.timings,
              error: realtime.error ?? null,
            },
    },
    lines,
  );
  adviseOnFiles(output, plugin, read.rows, outputs);
  const error = replies.find((reply) => reply.error)?.error;
  if (error)
    throw new CliError('faulty', `${nameOf(plugin)} could not be run: ${block(error.message)}`, {
      code: error.code,
    });
  if (failures.length > 0)
    throw new CliError('faulty', `${count(failures.length, 'row')} of ${read.rows.length} failed`);
  for (const [name, least] of agreements)
    if (least !== null && least < 0.999)
      throw new CliError(
        'faulty',
        `realtime.py and the batch steps disagree on ${name}: a cosine of ${least.toFixed(3)}. Queries would not find their documents`,
      );
}

const isBlank = (data: unknown) =>
  data === null || data === undefined || (typeof data === 'string' && data.trim() === '');

/** The runner says that no row has a vector; what it cannot know is how rows are written here. */
function adviseOnFiles(
  output: Output,
  plugin: CheckedPlugin,
  rows: readonly TestRow[],
  outputs: readonly TestOutput[],
): void {
  const withContent = outputs.filter(({ row }) => !isBlank(rows[row]?.data));
  if (withContent.length === 0 || withContent.some((one) => [...one.vectors.values()].some(Boolean))) return;
  const property = propertiesOf(plugin).find((name) => fileProperties.has(name));
  if (property !== undefined && rows.every(({ file }) => file === undefined))
    output.warn(
      `the plugin was given texts and made no vector; its rows are files, given by their paths: {"${property}": "a.png"}`,
    );
}

function jsonOutput({ row, columns, vectors }: TestOutput) {
  return {
    row,
    columns,
    vectors: Object.fromEntries([...vectors].map(([name, vector]) => [name, vector && [...vector.values]])),
  };
}

const columnsShownMax = 6;

function resultTable(
  rows: readonly TestRow[],
  outputs: readonly TestOutput[],
  features: readonly string[],
  rowsShown: number,
): string[] {
  const names = [...new Set(outputs.flatMap(({ columns }) => Object.keys(columns)))];
  const columns = names.slice(0, columnsShownMax);
  const first = outputs.slice(0, rowsShown);
  const lines = table(
    ['row', 'data', ...columns.map((name) => cut(block(name), 24)), ...features],
    first.map((one) => [
      one.row,
      shown(rows[one.row]?.data, 36),
      ...columns.map((name) => shown(one.columns[name], 24)),
      ...features.map((name) => vectorCell(one.vectors.get(name) ?? null)),
    ]),
  );
  const more = [
    ...(outputs.length > first.length ? [`${outputs.length - first.length} further rows (--show)`] : []),
    ...(names.length > columns.length
      ? [
          `further columns: ${names
            .slice(columnsShownMax)
            .map((name) => cut(block(name), 40))
            .join(', ')}`,
        ]
      : []),
  ];
  return [...lines, ...more.map((text) => `... ${text}`), ''];
}

const vectorCell = (vector: Vector | null) =>
  vector === null
    ? 'no vector'
    : `[${[...vector.values.subarray(0, 4)].map((value) => value.toFixed(3)).join(' ')}${vector.dims > 4 ? ' ...' : ''}]`;

function featureLines(
  name: string,
  outputs: readonly TestOutput[],
  agreements: ReadonlyMap<string, number | null>,
): string[] {
  const vectors = outputs.flatMap((one) => one.vectors.get(name) ?? []);
  const without = outputs.length - vectors.length;
  if (vectors.length === 0) return outputs.length === 0 ? [] : [`${name}: no vector at all`];
  const norms = vectors.map(({ norm }) => norm);
  const [least, most] = [Math.min(...norms), Math.max(...norms)];
  const lengths =
    most - least < 5e-4 ? `length ${most.toFixed(3)}` : `lengths ${least.toFixed(3)} to ${most.toFixed(3)}`;
  const cosineToBatch = agreements.get(name);
  return [
    `${name}: ${count(vectors.length, 'vector')} of ${vectors[0]!.dims} numbers, ${lengths}` +
      (without > 0 ? `; ${count(without, 'output')} without one` : ''),
    ...(cosineToBatch === undefined || cosineToBatch === null
      ? []
      : [`  realtime.py agrees with the batch steps to a cosine of ${cosineToBatch.toFixed(4)} or better`]),
  ];
}

function replyLines(reply: Reply, who: string, rows: readonly TestRow[], failuresShown: number): string[] {
  const { timings } = reply;
  const ms = (value: number | undefined) => `${(value ?? 0).toFixed(1)} ms`;
  const lines = [
    timings.run_ms === undefined
      ? `${who}${ms(timings.total_ms)} in all`
      : `${who}loaded in ${ms(timings.load_ms)}, ran in ${ms(timings.run_ms)} (${ms(timings.run_ms / Math.max(1, rows.length))} a row; CPU of the plugin ${ms(timings.plugin_cpu_ms)})`,
  ];
  for (const warning of reply.warnings ?? []) lines.push(`${who}warning: ${cut(block(warning), 1000)}`);
  if (reply.error?.traceback) lines.push(...indented(reply.error.traceback, '  '));
  const failures = reply.failures ?? [];
  for (const { row, code, message, traceback } of failures.slice(0, failuresShown)) {
    lines.push('', `${who}row ${row} (${rows[row]?.origin}): ${code}: ${block(message)}`);
    if (traceback) lines.push(...indented(traceback, '    '));
  }
  if (failures.length > failuresShown)
    lines.push('', `${who}... ${count(failures.length - failuresShown, 'further failed row')} (--show)`);
  if (reply.logs.trim() !== '')
    lines.push('', `${who}printed by the plugin:`, ...indented(reply.logs, '  | '));
  return lines;
}
