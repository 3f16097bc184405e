// The versions of a taxonomy's configuration: a row each, written once and never changed.
import { isoTime } from '../../clock.ts';
import type { NsCtx } from '../../context.ts';
import type { Item, Write } from '../../store/table.ts';
import { queryAll } from '../../store/table.ts';
import type { StoredTaxonomy, TaxonomyConfig } from './store.ts';
import { versionOf } from './store.ts';

export interface StoredVersion {
  readonly version: number;
  readonly taxonomy_type: StoredTaxonomy['taxonomy_type'];
  readonly config: TaxonomyConfig;
  readonly note: string | null;
  /** Id of the key that made it. */
  readonly created_by: string;
  readonly created_at: string;
}

/** Numbers in keys, so that they sort. */
const nameOf = (version: number) => String(version).padStart(7, '0');

export function versionWrite(ctx: NsCtx, taxonomyId: string, version: StoredVersion): Write {
  const { config, ...rest } = version;
  return {
    put: {
      ...ctx.ns.child('TAXONOMY', taxonomyId, 'VER', nameOf(version.version)),
      ...rest,
      config_json: JSON.stringify(config),
    },
    if: [{ absent: true }],
  };
}

/** The version that a request makes. */
export function newVersion(
  ctx: NsCtx,
  parts: Pick<StoredVersion, 'version' | 'taxonomy_type' | 'config' | 'note'>,
): StoredVersion {
  return { ...parts, created_by: ctx.principal.keyId, created_at: isoTime(ctx.ports.clock.now()) };
}

function toVersion(item: Item): StoredVersion {
  const { config_json, version, taxonomy_type, note, created_by, created_at } = item as unknown as Omit<
    StoredVersion,
    'config'
  > & { readonly config_json: string };
  return {
    version,
    taxonomy_type,
    config: JSON.parse(config_json) as TaxonomyConfig,
    note,
    created_by,
    created_at,
  };
}

/** The one that counts, of a taxonomy that was made before versions were kept. */
function fromRow(taxonomy: StoredTaxonomy): StoredVersion {
  return {
    version: versionOf(taxonomy),
    taxonomy_type: taxonomy.taxonomy_type,
    config: taxonomy.config,
    note: null,
    created_by: '',
    created_at: taxonomy.created_at,
  };
}

export async function findVersion(
  ctx: NsCtx,
  taxonomy: StoredTaxonomy,
  version: number,
): Promise<StoredVersion | undefined> {
  const item = await ctx.ports.table.get(ctx.ns.child('TAXONOMY', taxonomy.id, 'VER', nameOf(version)));
  if (item) return toVersion(item);
  return version === versionOf(taxonomy) ? fromRow(taxonomy) : undefined;
}

/** Newest first. */
export async function listVersions(ctx: NsCtx, taxonomy: StoredTaxonomy): Promise<StoredVersion[]> {
  const { pk, prefix } = ctx.ns.children('TAXONOMY', taxonomy.id, 'VER');
  const found: StoredVersion[] = [];
  for await (const item of queryAll(ctx.ports.table, pk, { prefix, descending: true }))
    found.push(toVersion(item));
  if (!found.some(({ version }) => version === versionOf(taxonomy))) found.push(fromRow(taxonomy));
  return found.sort((a, b) => b.version - a.version);
}

/** The write that keeps the version that counts, where a taxonomy from before versions is about to get a second one. */
export async function keepFirst(ctx: NsCtx, taxonomy: StoredTaxonomy): Promise<Write[]> {
  if (taxonomy.version !== undefined) return [];
  return [versionWrite(ctx, taxonomy.id, fromRow(taxonomy))];
}
