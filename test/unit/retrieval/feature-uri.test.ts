// Feature URIs: the form, its short versions, and what is said about wrong ones.
import { describe, expect, it } from 'vitest';
import { formatFeatureUri, parseFeatureUri } from '../../../functions/core/retrieval/feature-uri.ts';

describe('feature URIs', () => {
  it('are read into extractor, version and feature, and written back alike', () => {
    const text = 'mixpeek://text_embed@1.0.0/text_embed_v1_embedding';
    const { uri } = parseFeatureUri(text);
    expect(uri).toEqual({
      extractor_name: 'text_embed',
      version: '1.0.0',
      feature_name: 'text_embed_v1_embedding',
    });
    expect(formatFeatureUri(uri!)).toBe(text);
  });

  it.each([
    ['v1', '1.0.0'],
    ['2.1', '2.1.0'],
    ['v2.1.3', '2.1.3'],
    ['01.2.3', '1.2.3'],
  ])('complete the version %s to %s', (written, full) => {
    expect(parseFeatureUri(`mixpeek://abc@${written}/f`).uri?.version).toBe(full);
  });

  it.each([
    [7, 'is a text'],
    ['', 'does not begin'],
    ['http://abc@1.0.0/f', 'does not begin'],
    ['mixpeek://abc@1.0.0', 'names no feature'],
    ['mixpeek://abc/f', 'names no version'],
    ['mixpeek://@1.0.0/f', 'extractor name'],
    ['mixpeek://ab@1.0.0/f', 'extractor name'],
    ['mixpeek://1abc@1.0.0/f', 'extractor name'],
    ['mixpeek://abc@latest/f', 'version'],
    ['mixpeek://abc@1.0.0.0/f', 'version'],
    ['mixpeek://abc@1.0.0/', 'feature name'],
    ['mixpeek://abc@1.0.0/a/b', 'feature name'],
    ['mixpeek://abc@1.0.0/{{INPUT.x}}', 'feature name'],
    [`mixpeek://abc@1.0.0/${'f'.repeat(400)}`, 'longer'],
  ])('%s is refused with the right form', (text, reason) => {
    const { fault } = parseFeatureUri(text);
    expect(fault?.message).toContain(reason);
    expect(fault?.fix).toContain('mixpeek://<extractor>@<version>/<feature>');
  });
});
