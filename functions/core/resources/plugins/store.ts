// How plugins are stored: one row for each version, in its namespace's partition.
import type { NsCtx } from '../../context.ts';
import type { StoredResource } from '../../store/resource-store.ts';
import { resourceStore } from '../../store/resource-store.ts';
import type { Attribute } from '../../store/table.ts';

/** One vector column that a plugin makes. */
export interface StoredFeature {
  readonly feature_type: 'embedding';
  readonly feature_name: string;
  /** Length of its vectors, 1-4096. */
  readonly embedding_dim: number;
  readonly distance_metric: 'cosine' | 'dot' | 'euclid';
  readonly [name: string]: Attribute;
}

/** Something that the validation noticed and that refuses nothing. */
export interface StoredFinding {
  readonly type: string;
  readonly file: string;
  /** From 1; 0 where the finding is about the whole file. */
  readonly line: number;
  readonly column: number;
  readonly message: string;
  readonly fix: string | null;
  readonly [name: string]: Attribute;
}

/**
 * `failed`: the last deploy did not work; `batch_only` and `deployed` (with realtime inference) can run; `queued`: its
 * image is still being prepared.
 */
export type Deployment = 'not_deployed' | 'queued' | 'batch_only' | 'deployed' | 'failed';

/** One version of a plugin. Its content never changes; only `deployment` does. */
export interface StoredPlugin extends StoredResource {
  /** `text_embed_1_0_0`: name and version, dots as underscores. */
  readonly id: string;
  /** `text_embed@1.0.0`: what makes the version unique in its namespace. */
  readonly name: string;
  /** `text_embed` */
  readonly plugin_name: string;
  /** `d.d.d` */
  readonly version: string;
  readonly description: string | null;
  /** Hexadecimal SHA-256 of the archive: the content that batches and deduplication go by. */
  readonly archive_sha256: string;
  /** Key in the archive bucket: content-addressed, immutable. */
  readonly archive_key: string;
  readonly archive_bytes: number;
  /** The top folder inside the archive, '' if the files stand at its root. */
  readonly root: string;
  /** 1-8, names unique. */
  readonly features: readonly StoredFeature[];
  /** Which blob properties become rows where a collection says nothing else: input -> property. */
  readonly input_mappings: { readonly [input: string]: string };
  readonly compute_profile: { readonly [name: string]: Attribute };
  readonly has_realtime: boolean;
  /** Names of the namespace's secrets that a call gets; none where left out. */
  readonly secrets?: readonly string[];
  /** Image that it runs in, as a function of its own; null or left out: it runs in the runner. */
  readonly container_image?: string | null;
  /** Packages that the manifest asks for, as it writes them. */
  readonly dependencies?: readonly string[];
  readonly deployment: Deployment;
  readonly deployed_at: string | null;
  /** What the validation said of plugins that were made before it kept places: as texts. */
  readonly validation_warnings: readonly string[];
  /** Findings of the validation that refuse nothing. */
  readonly findings?: readonly StoredFinding[];
}

/** A namespace holds at most 50 plugin versions (API rules, section 12). */
export const pluginStore = resourceStore<StoredPlugin>({
  kind: 'PLUGIN',
  noun: 'plugin',
  countMax: 50,
});

/** Whether the namespace's plan has container images. The row is the organisation's, and rows without a plan have none. */
export async function mayUseImages(ctx: NsCtx): Promise<boolean> {
  const row = await ctx.ports.table.get(ctx.org.namespace(ctx.ns.namespaceId));
  const plan = row?.plan;
  return (
    typeof plan === 'object' && plan !== null && 'container_images' in plan && plan.container_images === true
  );
}
