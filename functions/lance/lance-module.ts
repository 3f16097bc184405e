// The part of @lancedb/lancedb and apache-arrow that is used here. The packages are installed beside this function
// only, so their own types are not at hand where it is checked.

export interface LanceQuery {
  select(columns: readonly string[]): this;
  limit(count: number): this;
  offset(count: number): this;
  toArray(): Promise<Record<string, unknown>[]>;
}

export interface LanceVectorQuery extends LanceQuery {
  distanceType(type: 'l2' | 'cosine' | 'dot'): this;
  nprobes(count: number): this;
}

export interface LanceTable {
  mergeInsert(on: string): {
    whenMatchedUpdateAll(): ReturnType<LanceTable['mergeInsert']>;
    whenNotMatchedInsertAll(): ReturnType<LanceTable['mergeInsert']>;
    execute(rows: readonly Record<string, unknown>[]): Promise<unknown>;
  };
  delete(predicate: string): Promise<unknown>;
  countRows(): Promise<number>;
  query(): LanceQuery;
  vectorSearch(vector: Float32Array): LanceVectorQuery;
  listIndices(): Promise<readonly { readonly columns: readonly string[] }[]>;
  createIndex(column: string, options: { readonly config: unknown }): Promise<unknown>;
  optimize(options: { readonly cleanupOlderThan: Date }): Promise<unknown>;
}

export interface LanceConnection {
  createEmptyTable(
    name: string,
    schema: unknown,
    options: { readonly existOk: boolean },
  ): Promise<LanceTable>;
  openTable(name: string): Promise<LanceTable>;
  dropTable(name: string): Promise<unknown>;
  tableNames(options: { readonly limit: number; readonly startAfter?: string }): Promise<string[]>;
}

export interface LanceModule {
  connect(uri: string, options: { readonly readConsistencyInterval: number }): Promise<LanceConnection>;
  readonly Index: {
    btree(): unknown;
    ivfFlat(options: {
      readonly distanceType: 'l2' | 'cosine' | 'dot';
      readonly numPartitions: number;
    }): unknown;
  };
}

export interface ArrowModule {
  readonly Schema: new (fields: readonly unknown[]) => unknown;
  readonly Field: new (name: string, type: unknown, nullable: boolean) => unknown;
  readonly Utf8: new () => unknown;
  readonly Float64: new () => unknown;
  readonly Float32: new () => unknown;
  readonly FixedSizeList: new (size: number, field: unknown) => unknown;
}
