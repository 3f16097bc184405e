// Measures taxonomies on real texts: how right they are, how well they refuse what is out of scope, and what
// classifying costs beside the bare kernel. Prints one JSON object as its last line.
//
//   node bench/understanding/taxonomy.ts --data FOLDER [--quick]
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { systemClock, systemRandom } from '../../functions/core/clock.ts';
import type { NsCtx } from '../../functions/core/context.ts';
import { inNamespace, makeContext } from '../../functions/core/context.ts';
import type { Ports } from '../../functions/core/ports.ts';
import { CreateBucketBody } from '../../functions/core/resources/buckets/contract.ts';
import { createBucket } from '../../functions/core/resources/buckets/service.ts';
import { CreateCollectionBody } from '../../functions/core/resources/collections/contract.ts';
import type { StoredCollection } from '../../functions/core/resources/collections/service.ts';
import { createCollection, featuresOf } from '../../functions/core/resources/collections/service.ts';
import { insertRow } from '../../functions/core/resources/documents/store.ts';
import { pluginStore } from '../../functions/core/resources/plugins/store.ts';
import { CreateRetrieverBody } from '../../functions/core/resources/retrievers/contract.ts';
import { IndexSearchPort } from '../../functions/core/resources/retrievers/search-port.ts';
import { createRetriever } from '../../functions/core/resources/retrievers/service.ts';
import { applyTaxonomy } from '../../functions/core/resources/taxonomies/apply.ts';
import { openClassifier } from '../../functions/core/resources/taxonomies/classify.ts';
import { CreateTaxonomyBody } from '../../functions/core/resources/taxonomies/contract.ts';
import type { Judged, Point } from '../../functions/core/resources/taxonomies/evaluate.ts';
import { judge, pointAt } from '../../functions/core/resources/taxonomies/evaluate.ts';
import { createTaxonomy } from '../../functions/core/resources/taxonomies/service.ts';
import type { StoredTaxonomy } from '../../functions/core/resources/taxonomies/store.ts';
import { MemoryBlobs, MemoryTable } from '../../functions/core/store/memory.ts';
import {
  commitIndex,
  documentsUri,
  openSequence,
  snapshot as openSnapshot,
  putSegment,
  readHead,
} from '../../functions/core/store/vector-index.ts';
import { CandidateScan } from '../../functions/core/vectors/kernel/candidate-scan.ts';
import { vectorMemory } from '../../functions/core/vectors/vector-memory.ts';
import { projectFolder, projectPython } from '../../local/emulator.ts';
import { median } from '../measure.ts';

const { values: asked } = parseArgs({
  options: { data: { type: 'string' }, quick: { type: 'boolean', default: false } },
});
if (!asked.data) throw new Error('name the folder with banking77 and clinc150: --data FOLDER');
const data = asked.data;

const dims = 128;
const uri = 'mixpeek://ngram_bench@1.0.0/ngram';
/** Documents of one classification, as runs take them. */
const documentsAtOnce = 500;
const hour = 3_600_000;

interface Labelled {
  readonly text: string;
  /** Null: out of scope. */
  readonly label: string | null;
}

/** Rows of a file of two columns; quoted fields may hold commas, line ends and doubled quotes. */
function readCsv(file: string): Labelled[] {
  const text = readFileSync(file, 'utf8').replaceAll('\r\n', '\n').trimEnd();
  const row = /(?:"((?:[^"]|"")*)"|([^,\n]*)),([^\n]*)(?:\n|$)/y;
  const found: Labelled[] = [];
  while (row.lastIndex < text.length) {
    const at = row.lastIndex;
    const match = row.exec(text);
    if (!match) throw new Error(`${file}: no row of two columns at character ${at}`);
    found.push({ text: match[1]?.replaceAll('""', '"') ?? match[2]!, label: match[3]! });
  }
  return found.slice(1);
}

const banking = {
  train: readCsv(join(data, 'banking77', 'train.csv')),
  test: readCsv(join(data, 'banking77', 'test.csv')),
};
const clincFile = JSON.parse(readFileSync(join(data, 'clinc150', 'data_full.json'), 'utf8')) as Record<
  string,
  [string, string][]
>;
const clincPart = (...names: string[]): Labelled[] =>
  names.flatMap((name) =>
    clincFile[name]!.map(([text, label]) => ({ text, label: label === 'oos' ? null : label })),
  );
const clinc = {
  train: clincPart('train'),
  validation: clincPart('val', 'oos_val'),
  test: clincPart('test', 'oos_test'),
};

/** By text: the vector of the sample plugin without parameters, and that with `words: all`. */
function embedAll(texts: readonly string[]): Record<'topicWords' | 'allWords', Map<string, Float32Array>> {
  const folder = mkdtempSync(join(tmpdir(), 'granary-bench-'));
  try {
    const file = join(folder, 'vectors');
    const run = spawnSync(
      projectPython,
      [join(import.meta.dirname, 'ngrams.py'), join(projectFolder, 'examples', 'ngram_embed'), file],
      { input: JSON.stringify(texts), encoding: 'utf8', env: { ...process.env, OPENBLAS_NUM_THREADS: '1' } },
    );
    if (run.status !== 0) throw new Error(`the embedder failed: ${run.stderr.slice(-2_000)}`);
    const bytes = readFileSync(file);
    const all = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
    const rowsFrom = (first: number) =>
      new Map(texts.map((text, i) => [text, all.slice((first + i) * dims, (first + i + 1) * dims)]));
    return { topicWords: rowsFrom(0), allWords: rowsFrom(texts.length) };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** A namespace in memory whose plugin looks vectors up. */
function makeContextOf(vectors: ReadonlyMap<string, Float32Array>): NsCtx {
  const quiet = { info: () => undefined, warn: () => undefined, error: () => undefined };
  const none = { call: () => Promise.reject(new Error('nothing validates plugins here')) };
  const embed = async (payload: unknown) => {
    const { rows } = payload as { rows: readonly { row: number; data: string }[] };
    const found = rows.map(({ data: text }) => vectors.get(text)!);
    const all = new Float32Array(found.length * dims);
    for (const [i, vector] of found.entries()) all.set(vector, i * dims);
    return {
      outputs: rows.map(({ row }, i) => ({ row, ordinal: 0, features: { ngram: i } })),
      vectors: {
        ngram: { dims, count: rows.length, data_base64: Buffer.from(all.buffer).toString('base64') },
      },
    };
  };
  const ports: Ports = {
    table: new MemoryTable(),
    blobs: new MemoryBlobs('blobs', systemClock),
    archives: new MemoryBlobs('archives', systemClock),
    index: new MemoryBlobs('index', systemClock),
    runner: { call: embed },
    validator: none,
    clock: systemClock,
    random: systemRandom,
    log: quiet,
    settings: {
      stage: 'bench',
      pepper: async () => 'the pepper of a bench, which seals nothing at all',
      rateLimits: { metadata: 1e6, data: 1e6, search: 1e6, upload: 1e6, compute: 1e6 },
      allowLoopback: false,
      realtimePlugins: true,
    },
  };
  const principal = { orgId: 'org_bench', keyId: 'bench', permissions: ['admin' as const] };
  return inNamespace(makeContext(ports, principal, 'bench'), 'ns_bench');
}

async function addCollection(ctx: NsCtx, name: string): Promise<StoredCollection> {
  if (!(await pluginStore.find(ctx, 'ngram_bench_1_0_0'))) {
    await pluginStore.create(ctx, {
      id: 'ngram_bench_1_0_0',
      name: 'ngram_bench@1.0.0',
      parents: [],
      plugin_name: 'ngram_bench',
      version: '1.0.0',
      description: null,
      archive_sha256: 'f'.repeat(64),
      archive_key: 'plugins/bench.zip',
      archive_bytes: 1,
      root: '',
      features: [
        {
          feature_type: 'embedding',
          feature_name: 'ngram',
          embedding_dim: dims,
          distance_metric: 'cosine',
        },
      ],
      input_mappings: { text: 'text' },
      compute_profile: {},
      has_realtime: false,
      deployment: 'batch_only',
      deployed_at: null,
      validation_warnings: [],
    });
    const properties = { text: { type: 'text' }, label: { type: 'string' } };
    await createBucket(ctx, CreateBucketBody.parse({ bucket_name: 'texts', bucket_schema: { properties } }));
  }
  return createCollection(
    ctx,
    CreateCollectionBody.parse({
      collection_name: name,
      source: { type: 'bucket', bucket_ids: ['texts'] },
      feature_extractors: [
        { feature_extractor_name: 'ngram_bench', version: '1.0.0', input_mappings: { text: 'text' } },
      ],
    }),
  );
}

/** Documents with their vectors, as a batch leaves them. @returns their ids */
async function fill(
  ctx: NsCtx,
  collection: StoredCollection,
  texts: readonly Labelled[],
  vectors: ReadonlyMap<string, Float32Array>,
): Promise<string[]> {
  const { table } = ctx.ports;
  const sequence = { batch_id: `btch_${collection.name}`, attempt: 1 };
  const opened = openSequence(ctx, await readHead(ctx, collection.id), sequence);
  await table.write([opened.write!]);
  const time = new Date().toISOString();
  const documents = texts.map(({ text, label }, i) => ({
    id: `doc_${String(i).padStart(20, '0')}`,
    fields: { text, ...(label === null ? {} : { label }) },
  }));
  for (let i = 0; i < documents.length; i += 100) {
    await table.write(
      documents.slice(i, i + 100).map(({ id, fields }) => {
        const lineage = {
          bucket_id: 'bkt_bench',
          object_id: `obj_${id}`,
          object_version: 1,
          batch_id: sequence.batch_id,
          feature_extractor_id: 'ngram_bench_1_0_0',
          feature_extractor_ids: ['ngram_bench_1_0_0'],
          ordinal: 0,
        };
        const body = {
          fields,
          lineage,
          enrichments: [],
          blobs: [],
          features: [uri],
          created_at: time,
          updated_at: time,
        };
        return insertRow(ctx, collection.id, id, {
          seq: opened.seq,
          object_id: lineage.object_id,
          object_version: 1,
          content_hash: 'bench',
          body: JSON.stringify(body),
        });
      }),
    );
  }
  const [feature] = featuresOf(collection);
  const rows = documents.map(({ id, fields }) => ({ id, columns: new Map(Object.entries(fields)) }));
  const withVectors = rows.map((row, i) => ({ ...row, vector: vectors.get(texts[i]!.text)! }));
  const put = { collection_id: collection.id, document_delta: rows.length, sequence };
  const additions = [
    {
      uri: documentsUri,
      dims: 0,
      metric: null,
      segment: await putSegment(ctx, collection.id, { kind: 'data', dims: 0, metric: null, rows }),
    },
    {
      uri: feature!.feature_uri,
      dims,
      metric: feature!.metric,
      segment: await putSegment(ctx, collection.id, {
        kind: 'data',
        dims,
        metric: feature!.metric,
        rows: withVectors,
      }),
    },
  ];
  await commitIndex(ctx, [{ ...put, additions }], { token: sequence.batch_id });
  return documents.map(({ id }) => id);
}

async function addTaxonomy(
  ctx: NsCtx,
  references: StoredCollection,
  rules: Readonly<Record<string, unknown>>,
): Promise<StoredTaxonomy> {
  const search = { feature_uri: uri, query: '{{INPUT.query}}' };
  await createRetriever(
    ctx,
    CreateRetrieverBody.parse({
      retriever_name: 'nearest',
      stages: [
        { stage_name: 'search', config: { stage_id: 'feature_search', parameters: { searches: [search] } } },
      ],
    }),
  );
  const { taxonomy } = await createTaxonomy(
    ctx,
    CreateTaxonomyBody.parse({
      taxonomy_name: 'labels',
      retriever_id: 'nearest',
      collection_id: references.id,
      input_mappings: [{ source: 'text', target: 'query' }],
      enrichment_fields: [{ source: 'label', target: 'auto_label' }],
      ...rules,
    }),
  );
  return taxonomy;
}

/** What the classifier says of texts when thresholds are set aside. */
async function predict(ctx: NsCtx, taxonomy: StoredTaxonomy, texts: readonly Labelled[]): Promise<Judged[]> {
  const classifier = await openClassifier(ctx, taxonomy, { evaluating: true });
  const found: Judged[] = [];
  for (let i = 0; i < texts.length; i += documentsAtOnce) {
    const block = texts.slice(i, i + documentsAtOnce);
    const { placements } = await classifier.classify(
      block.map(({ text }) => ({ fields: { text } })),
      Date.now() + hour,
    );
    for (const [n, { assignments }] of placements.entries()) {
      const value = assignments[0]?.values.get('auto_label')?.value;
      const predicted = typeof value === 'string' ? value : null;
      found.push({
        expected: block[n]!.label,
        predicted,
        score: predicted === null ? null : assignments[0]!.score,
      });
    }
  }
  return found;
}

interface Case {
  readonly ctx: NsCtx;
  readonly taxonomy: StoredTaxonomy;
  readonly references: StoredCollection;
}

async function makeCase(
  references: readonly Labelled[],
  vectors: ReadonlyMap<string, Float32Array>,
  rules: Readonly<Record<string, unknown>>,
): Promise<Case> {
  const ctx = makeContextOf(vectors);
  const collection = await addCollection(ctx, 'references');
  await fill(ctx, collection, references, vectors);
  return { ctx, references: collection, taxonomy: await addTaxonomy(ctx, collection, rules) };
}

const voting = { vote: 'weighted', top_k: 5 };

async function accuracy(
  vectors: ReadonlyMap<string, Float32Array>,
  rules: Readonly<Record<string, unknown>>,
): Promise<number> {
  const { ctx, taxonomy } = await makeCase(banking.train, vectors, rules);
  return judge(await predict(ctx, taxonomy, banking.test)).accuracy!;
}

/** The threshold is suggested on the validation part alone and measured on the test part. */
async function outOfScope(
  vectors: ReadonlyMap<string, Float32Array>,
  rules: Readonly<Record<string, unknown>>,
): Promise<Point & { readonly accuracy: number }> {
  const { ctx, taxonomy } = await makeCase(clinc.train, vectors, rules);
  const { suggested } = judge(await predict(ctx, taxonomy, clinc.validation));
  const judged = await predict(ctx, taxonomy, clinc.test);
  return { ...pointAt(judged, suggested!.threshold), accuracy: judge(judged).accuracy! };
}

const cpuMs = () => {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1_000;
};

interface Cost {
  readonly kernel: number;
  readonly search: number;
  readonly apply: number;
}

/** CPU of 16 queries a pass through the kernel, of the searches of a run, and of the whole run, in milliseconds. */
async function cost(
  { ctx, taxonomy, references }: Case,
  documents: StoredCollection,
  ids: readonly string[],
  texts: readonly Labelled[],
  vectors: ReadonlyMap<string, Float32Array>,
): Promise<Cost> {
  const memory = vectorMemory();
  const { snapshot: opened } = await openSnapshot(ctx, references.id, featuresOf(references)[0]!.feature_uri);
  const snapshot = opened!;
  const kernelPass = async () => {
    for (let i = 0; i < texts.length; i += 16) {
      const queries = texts.slice(i, i + 16).map(({ text }) => vectors.get(text)!);
      const scan = new CandidateScan(
        memory.kernel,
        'cosine',
        dims,
        queries,
        queries.map(() => 1),
        Number.NEGATIVE_INFINITY,
      );
      for (const [part, { segment }] of snapshot.parts.entries()) {
        await segment.vectors!.scan(memory, (resident) => scan.scan(part, resident!, undefined));
      }
    }
  };
  await kernelPass();
  let before = cpuMs();
  await kernelPass();
  const kernel = cpuMs() - before;

  let search = 0;
  const plain = IndexSearchPort.prototype.search;
  IndexSearchPort.prototype.search = async function timed(request) {
    const start = cpuMs();
    const reply = await plain.call(this, request);
    search += cpuMs() - start;
    return reply;
  };
  try {
    before = cpuMs();
    await applyTaxonomy(ctx, await openClassifier(ctx, taxonomy), documents.id, ids, () => false);
    return { kernel, search, apply: cpuMs() - before };
  } finally {
    IndexSearchPort.prototype.search = plain;
  }
}

async function materializing(vectors: ReadonlyMap<string, Float32Array>): Promise<Record<string, number>> {
  const count = 10_000;
  const texts = clinc.train.slice(0, count).map(({ text }) => ({ text, label: null }));
  const rounds: Cost[] = [];
  for (let round = 0; round < (asked.quick ? 2 : 4); round += 1) {
    // A namespace of its own each time: a run that finds its own work changes nothing.
    const made = await makeCase(banking.train.slice(0, count), vectors, {});
    const documents = await addCollection(made.ctx, 'documents');
    const ids = await fill(made.ctx, documents, texts, vectors);
    const one = await cost(made, documents, ids, texts, vectors);
    // The first round pays for what compilers set up once.
    if (round > 0) rounds.push(one);
  }
  const ratio = (part: (one: Cost) => number) => median(rounds.map((one) => part(one) / one.kernel));
  return {
    materialize_vs_kernel: ratio(({ search }) => search),
    materialize_vs_kernel_runs: rounds.length,
    materialize_run_vs_kernel: ratio(({ apply }) => apply),
    kernel_cpu_ms: median(rounds.map(({ kernel }) => kernel)),
    materialize_search_cpu_ms: median(rounds.map(({ search }) => search)),
    materialize_run_cpu_ms: median(rounds.map(({ apply }) => apply)),
  };
}

const distinct = [
  ...new Set([...Object.values(banking), ...Object.values(clinc)].flat().map(({ text }) => text)),
];
const vectors = embedAll(distinct);
const scope = await outOfScope(vectors.topicWords, {});
const figures = {
  taxonomy_accuracy: await accuracy(vectors.allWords, voting),
  taxonomy_accuracy_nearest: await accuracy(vectors.allWords, {}),
  taxonomy_accuracy_topic_words: await accuracy(vectors.topicWords, voting),
  out_of_scope_refused: scope.out_of_scope_refused!,
  in_scope_coverage: scope.coverage!,
  in_scope_accuracy: scope.accuracy,
  suggested_threshold: scope.threshold!,
  accepted_precision: scope.precision!,
  ...(await materializing(vectors.allWords)),
};
console.log(JSON.stringify(figures));
