// The operations of the LanceDB function over the tables of one place: a bucket, or a folder in tests.
import type { LanceAnswer, LanceReply, LanceRequest } from '../core/backends/lance-protocol.ts';
import type { ArrowModule, LanceConnection, LanceModule, LanceTable } from './lance-module.ts';

export interface LancePackages {
  readonly lancedb: LanceModule;
  readonly arrow: ArrowModule;
}

export interface LanceOptions {
  /** Where the folders of namespaces lie: `s3://<bucket>`, or a path. */
  readonly root: string;
  /** Milliseconds since 1970. @default the clock of the machine */
  readonly now?: () => number;
  /** Tables of fewer rows are searched whole, which is quick and misses nothing. @default 50,000 */
  readonly indexRowsMin?: number;
}

const rowsPerPage = 10_000;
const tablesPerPage = 1_000;
const indexRowsMinDefault = 50_000;
/** Looking up ids by an index pays from here on. */
const idIndexRowsMin = 10_000;
/** Clusters that a query of an indexed table looks into. */
const probes = 32;
/** Queries that began on an older version have ended. */
const cleanupAfterMs = 3_600_000;

const distances = { cosine: 'cosine', dot: 'dot', euclid: 'l2' } as const;

/** @returns the handler of the Lambda */
export function makeLance(packages: LancePackages, options: LanceOptions) {
  const lance = new Lance(packages, options);
  return async (request: LanceRequest): Promise<LanceAnswer> => {
    try {
      return { ok: true, reply: await lance.answer(request) };
    } catch (error) {
      const message = (error as Error).message.split('\n')[0]!.slice(0, 500);
      return { ok: false, code: /was not found/.test(message) ? 'index_missing' : 'unavailable', message };
    }
  };
}

class Lance {
  readonly #packages: LancePackages;
  readonly #options: LanceOptions;
  readonly #connections = new Map<string, Promise<LanceConnection>>();

  constructor(packages: LancePackages, options: LanceOptions) {
    this.#packages = packages;
    this.#options = options;
  }

  async answer(request: LanceRequest): Promise<LanceReply[keyof LanceReply]> {
    switch (request.op) {
      case 'ensure':
        await this.#ensure(request.folder, request.table, request.dims);
        return null;
      case 'put':
        return this.#put(request);
      case 'remove':
        return this.#remove(await this.#table(request), request.ids);
      case 'query':
        return this.#query(await this.#table(request), request);
      case 'count':
        return { count: await (await this.#table(request)).countRows() };
      case 'list':
        return this.#list(await this.#table(request), Number(request.cursor ?? 0));
      case 'settle':
        return this.#settle(await this.#table(request), request.metric);
      case 'drop':
        return this.#drop(request.folder, request.table);
      case 'drop_all':
        return this.#dropAll(request.folder, request.prefix);
      default:
        throw new Error(`no operation ${JSON.stringify((request as { op?: unknown }).op)}`);
    }
  }

  #connection(folder: string): Promise<LanceConnection> {
    const known =
      this.#connections.get(folder) ??
      // Every read looks for the newest version: another environment may have written it.
      this.#packages.lancedb.connect(`${this.#options.root}/${folder}`, { readConsistencyInterval: 0 });
    this.#connections.set(folder, known);
    known.catch(() => this.#connections.delete(folder));
    return known;
  }

  async #table({ folder, table }: { readonly folder: string; readonly table: string }): Promise<LanceTable> {
    return (await this.#connection(folder)).openTable(table);
  }

  async #ensure(folder: string, table: string, dims: number): Promise<LanceTable> {
    const { Schema, Field, Utf8, Float64, Float32, FixedSizeList } = this.#packages.arrow;
    const schema = new Schema([
      new Field('id', new Utf8(), false),
      // Whole numbers below 2^53, so exact.
      new Field('seq', new Float64(), false),
      new Field('vector', new FixedSizeList(dims, new Field('item', new Float32(), true)), false),
    ]);
    return (await this.#connection(folder)).createEmptyTable(table, schema, { existOk: true });
  }

  async #put(request: Extract<LanceRequest, { op: 'put' }>): Promise<null> {
    const { ids, seqs, dims } = request;
    const values = floats(request.vectors);
    const rows = ids.map((id, i) => ({
      id,
      seq: seqs[i]!,
      vector: values.subarray(i * dims, (i + 1) * dims),
    }));
    const table = await this.#table(request);
    await table.mergeInsert('id').whenMatchedUpdateAll().whenNotMatchedInsertAll().execute(rows);
    return null;
  }

  async #remove(table: LanceTable, ids: readonly string[]): Promise<null> {
    if (ids.length > 0) await table.delete(`id IN (${ids.map(quoted).join(', ')})`);
    return null;
  }

  async #query(
    table: LanceTable,
    { metric, vector, k }: Extract<LanceRequest, { op: 'query' }>,
  ): Promise<{ ids: string[] }> {
    const found = await table
      .vectorSearch(floats(vector))
      .distanceType(distances[metric])
      .nprobes(probes)
      .select(['id', '_distance'])
      .limit(k)
      .toArray();
    return { ids: found.map(({ id }) => String(id)) };
  }

  async #list(table: LanceTable, offset: number): Promise<LanceReply['list']> {
    const rows = await table.query().select(['id', 'seq']).limit(rowsPerPage).offset(offset).toArray();
    return {
      ids: rows.map(({ id }) => String(id)),
      seqs: rows.map(({ seq }) => Number(seq)),
      ...(rows.length < rowsPerPage ? {} : { next: String(offset + rows.length) }),
    };
  }

  /** Indexes what has none yet, takes newer rows into the indexes, and merges the small files of many puts. */
  async #settle(table: LanceTable, metric: keyof typeof distances): Promise<null> {
    const { Index } = this.#packages.lancedb;
    const rows = await table.countRows();
    const indexed = new Set((await table.listIndices()).flatMap(({ columns }) => columns));
    if (rows >= idIndexRowsMin && !indexed.has('id'))
      await table.createIndex('id', { config: Index.btree() });
    if (rows >= (this.#options.indexRowsMin ?? indexRowsMinDefault) && !indexed.has('vector')) {
      const config = Index.ivfFlat({
        distanceType: distances[metric],
        numPartitions: Math.max(1, Math.round(Math.sqrt(rows))),
      });
      await table.createIndex('vector', { config });
    }
    const nowMs = (this.#options.now ?? Date.now)();
    if (rows > 0) await table.optimize({ cleanupOlderThan: new Date(nowMs - cleanupAfterMs) });
    return null;
  }

  async #drop(folder: string, table: string): Promise<null> {
    const connection = await this.#connection(folder);
    if ((await this.#names(connection)).includes(table)) await connection.dropTable(table);
    return null;
  }

  async #dropAll(folder: string, prefix: string): Promise<null> {
    const connection = await this.#connection(folder);
    for (const name of await this.#names(connection))
      if (name.startsWith(prefix)) await connection.dropTable(name);
    return null;
  }

  async #names(connection: LanceConnection): Promise<string[]> {
    const names: string[] = [];
    for (;;) {
      const startAfter = names.at(-1);
      const page = await connection.tableNames({
        limit: tablesPerPage,
        ...(startAfter === undefined ? {} : { startAfter }),
      });
      names.push(...page);
      if (page.length < tablesPerPage) return names;
    }
  }
}

/** Base64 of little-endian float32. The copy is aligned, which the decoded bytes need not be. */
function floats(base64: string): Float32Array {
  const bytes = Uint8Array.from(Buffer.from(base64, 'base64'));
  return new Float32Array(bytes.buffer);
}

/** A text in the language of predicates, where only the quote itself must be written twice. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", "''")}'`;
}
