// What a collection keeps of a plugin version that it uses: its features, inputs and parameters, and a digest of them.
import { createHash } from 'node:crypto';
import { formatFeatureUri } from '../../retrieval/feature-uri.ts';
import type { StoredPlugin } from '../plugins/service.ts';
import type { StoredExtractor } from './store.ts';

/** JSON with sorted keys, so that equal values have equal digests. */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  if (typeof value !== 'object' || value === null) return JSON.stringify(value) ?? 'null';
  const members = Object.entries(value)
    .filter(([, member]) => member !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([name, member]) => `${JSON.stringify(name)}:${canonicalJson(member)}`);
  return `{${members.join(',')}}`;
}

/** 32 hexadecimal digits. */
export function digestOf(value: unknown): string {
  return createHash('sha256').update(canonicalJson(value)).digest('hex').slice(0, 32);
}

/** `v1` and `1.0` are `1.0.0`. */
export function fullVersion(text: string): string {
  const [major = '0', minor = '0', patch = '0'] = text.replace(/^v/, '').split('.');
  return [major, minor, patch].map((part) => String(Number(part))).join('.');
}

/** @param mappings input of the plugin -> property of the buckets */
export function extractorOf(
  plugin: StoredPlugin,
  mappings: StoredExtractor['input_mappings'],
  parameters: StoredExtractor['parameters'],
): StoredExtractor {
  return {
    feature_extractor_name: plugin.plugin_name,
    version: plugin.version,
    plugin_id: plugin.id,
    input_mappings: mappings,
    parameters,
    features: plugin.features.map((feature) => ({
      feature_uri: formatFeatureUri({
        extractor_name: plugin.plugin_name,
        version: plugin.version,
        feature_name: feature.feature_name,
      }),
      feature_name: feature.feature_name,
      dims: feature.embedding_dim,
      metric: feature.distance_metric,
    })),
    content_hash: digestOf([plugin.archive_sha256, mappings, parameters]),
  };
}
