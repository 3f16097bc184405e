// Feature URIs, `mixpeek://<extractor>@<version>/<feature>`: the address of one vector column of one extractor version.
import type { Fault } from './faults.ts';

/** The three parts of a feature URI; the version is always `d.d.d`. */
export interface FeatureUri {
  readonly extractor_name: string;
  readonly version: string;
  readonly feature_name: string;
}

/** The form that every fault quotes. */
export const featureUriForm = 'mixpeek://<extractor>@<version>/<feature>';
const example = 'mixpeek://text_embed@1.0.0/text_embed_v1_embedding';
const scheme = 'mixpeek://';

/** Writes a feature URI. */
export function formatFeatureUri({ extractor_name, version, feature_name }: FeatureUri): string {
  return `${scheme}${extractor_name}@${version}/${feature_name}`;
}

/** `v1` -> `1.0.0`, `2.1` -> `2.1.0`; undefined if it is no version. */
function fullVersion(text: string): string | undefined {
  const match = /^v?(\d{1,6})(?:\.(\d{1,6}))?(?:\.(\d{1,6}))?$/.exec(text);
  return match ? [match[1], match[2] ?? '0', match[3] ?? '0'].map(Number).join('.') : undefined;
}

/**
 * Reads a feature URI.
 *
 * Short versions are completed, so `mixpeek://text_embed@v1/x` and `…@1.0.0/x` are the same feature.
 *
 * @returns the parts, or one fault (with an empty path) that names what is wrong and shows the right form
 */
export function parseFeatureUri(
  text: unknown,
): { uri: FeatureUri; fault?: never } | { uri?: never; fault: Fault } {
  const wrong = (message: string, fix = `write ${featureUriForm}, such as ${example}`) => ({
    fault: { type: 'feature_uri_invalid', path: [], message, fix },
  });
  if (typeof text !== 'string') return wrong('a feature URI is a text');
  if (text.length > 300) return wrong('the feature URI is longer than 300 characters');
  if (!text.startsWith(scheme)) return wrong(`the feature URI does not begin with ${scheme}`);
  const rest = text.slice(scheme.length);
  const slash = rest.indexOf('/');
  if (slash < 0) return wrong('the feature URI names no feature: the part behind the version is missing');
  const at = rest.slice(0, slash).indexOf('@');
  if (at < 0) return wrong('the feature URI names no version: @<version> is missing');
  const extractor_name = rest.slice(0, at);
  const feature_name = rest.slice(slash + 1);
  const version = fullVersion(rest.slice(at + 1, slash));
  if (!/^[A-Za-z][A-Za-z0-9_]{2,63}$/.test(extractor_name)) {
    return wrong('the extractor name must be a letter and 2 to 63 letters, digits or underscores');
  }
  if (version === undefined) return wrong('the version must be three numbers, such as 1.0.0');
  if (!/^[A-Za-z0-9_.-]{1,128}$/.test(feature_name)) {
    return wrong('the feature name must be 1 to 128 letters, digits, dots, dashes or underscores');
  }
  return { uri: { extractor_name, version, feature_name } };
}
