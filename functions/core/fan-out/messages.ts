// What a query function asks of a scan function, and what it answers. Both are one deployment; neither is public.

export interface ScanRequest {
  readonly org_id: string;
  readonly namespace_id: string;
  readonly request_id: string;
  readonly collection_id: string;
  /** The one version that the whole query sees. */
  readonly manifest_key: string;
  readonly feature_uri: string;
  /** Keys of the segments to scan. */
  readonly segments: readonly string[];
  /** Float32, little endian, base64. */
  readonly queries: readonly string[];
  readonly k: number;
  /** As `toTree` writes it. */
  readonly filter?: unknown;
  readonly include?: readonly string[];
  readonly exclude?: readonly (readonly string[])[];
  readonly min_score?: number;
}

export interface ScanReply {
  /** By query, best first. */
  readonly matches: readonly (readonly (readonly [id: string, score: number])[])[];
  readonly rows_selected: number;
  readonly bytes_scanned: number;
  readonly reranked: number;
  readonly cold: boolean;
  /** Fields of the filter that no row of these segments has. */
  readonly unknown_fields: readonly string[];
}

export function encodeVector(vector: Float32Array): string {
  return Buffer.from(vector.buffer, vector.byteOffset, vector.byteLength).toString('base64');
}

export function decodeVector(text: string): Float32Array {
  const bytes = Buffer.from(text, 'base64');
  return new Float32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
}
