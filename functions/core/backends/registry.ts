// Every vector backend by its name on the wire: a file beside this one, and a line here.
import type { BackendDescription, VectorBackend } from './backend.ts';
import { lancedb } from './lancedb.ts';
import { s3Vectors } from './s3-vectors.ts';
import { segments } from './segments.ts';

export const backends = {
  segments,
  s3_vectors: s3Vectors,
  lancedb,
} as const satisfies Record<string, BackendDescription>;

export type BackendName = keyof typeof backends;
/** A backend that holds copies. */
export type CopyBackendName = Exclude<BackendName, 'segments'>;

export const backendNames = Object.keys(backends) as [BackendName, ...BackendName[]];

/** The backends that a stage has, ready to be called. One that is not here is not enabled on this stage. */
export type BackendPorts = { readonly [name in CopyBackendName]?: VectorBackend };

export function describe(name: BackendName): BackendDescription {
  return backends[name];
}

/** How vectors are stored in segments. */
export const storageFormats = ['float32', 'bfloat16'] as const;
export type StorageFormat = (typeof storageFormats)[number];
