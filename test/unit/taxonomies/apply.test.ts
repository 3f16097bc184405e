// What a taxonomy changes in one document, and how it reads fields and errors.
import { describe, expect, it } from 'vitest';
import type { StoredDocument } from '../../../functions/core/resources/documents/service.ts';
import { changeFor } from '../../../functions/core/resources/taxonomies/apply.ts';
import type { Nearest } from '../../../functions/core/resources/taxonomies/classify.ts';
import { inputsOf, readField } from '../../../functions/core/resources/taxonomies/classify.ts';
import type { StoredTaxonomy } from '../../../functions/core/resources/taxonomies/store.ts';
import { messageOf } from '../../../functions/core/resources/taxonomies/workflow.ts';

const at = '2026-01-01T00:00:00.000Z';
const taxonomy = {
  id: 'tax_1',
  revision: 3,
  config: { enrichment_fields: [{ field_path: 'topic', target_field: 'auto_topic', merge_mode: 'replace' }] },
} as unknown as StoredTaxonomy;
const entry = {
  taxonomy_id: 'tax_1',
  version: 2,
  field: 'auto_topic',
  value: 'a',
  score: 0.9,
  matched_document_id: 'doc_r',
  at,
};
const other = {
  taxonomy_id: 'tax_2',
  version: 1,
  field: 'kind',
  value: 'x',
  score: 1,
  matched_document_id: 'doc_q',
  at,
};
const nearest: Nearest = {
  document_id: 'doc_r',
  collection_id: 'col_1',
  score: 0.9,
  values: new Map([['auto_topic', 'a']]),
};

function document(fields: Record<string, string>, enrichments: readonly object[]): StoredDocument {
  return {
    document_id: 'doc_d',
    collection_id: 'col_1',
    fields,
    enrichments,
    source_version: 4,
  } as unknown as StoredDocument;
}

describe('changeFor', () => {
  it('is nothing when value, score and reference are what they were, whichever version wrote them', () => {
    expect(
      changeFor(taxonomy, document({ auto_topic: 'a' }, [entry, other]), nearest, undefined, at),
    ).toBeUndefined();
    expect(changeFor(taxonomy, document({ text: 'x' }, [other]), undefined, undefined, at)).toBeUndefined();
    expect(
      changeFor(taxonomy, document({ text: 'x' }, []), { ...nearest, values: undefined }, undefined, at),
    ).toBeUndefined();
  });

  it('writes the value with its provenance when anything about it differs', () => {
    const wanted = {
      set: { auto_topic: 'a' },
      provenance: [{ ...entry, version: 3 }],
      provenance_removed: [],
      if_source_version: 4,
    };
    for (const before of [
      document({}, []),
      document({ auto_topic: 'a' }, []),
      document({ auto_topic: 'changed by hand' }, [entry]),
      document({ auto_topic: 'a' }, [{ ...entry, score: 0.8 }]),
      document({ auto_topic: 'a' }, [{ ...entry, matched_document_id: 'doc_s' }]),
    ]) {
      expect(changeFor(taxonomy, before, nearest, undefined, at)).toMatchObject(wanted);
    }
  });

  it('takes away only what this taxonomy wrote and nobody has changed', () => {
    const gone = { provenance: [], provenance_removed: [{ taxonomy_id: 'tax_1', field: 'auto_topic' }] };
    expect(
      changeFor(taxonomy, document({ auto_topic: 'a' }, [entry, other]), undefined, undefined, at),
    ).toMatchObject({ ...gone, remove: ['auto_topic'] });
    expect(
      changeFor(taxonomy, document({ auto_topic: 'mine' }, [entry]), undefined, undefined, at),
    ).toMatchObject({ ...gone, remove: [] });
  });
});

describe('readField', () => {
  it('reads metadata.x, payload.x and x alike, and only what the document itself has', () => {
    const fields = { topic: 'a', nested: { name: 'b' }, 'dotted.name': 'c', list: ['d'] };
    expect(
      ['topic', 'metadata.topic', 'payload.topic', 'nested.name', 'dotted.name'].map((path) =>
        readField(fields, path),
      ),
    ).toEqual(['a', 'a', 'a', 'b', 'c']);
    expect(
      ['toString', 'constructor.name', 'list.0', 'nested.name.length', 'absent'].map((path) =>
        readField(fields, path),
      ),
    ).toEqual(Array.from({ length: 5 }, () => undefined));
  });
});

describe('inputsOf', () => {
  it('takes fields, literals and defaults, leaves out what is missing, and shortens texts without cutting a character', () => {
    const mapping = (input_key: string, path: string) => ({
      input_key,
      source_type: 'payload' as const,
      path,
      override: null,
    });
    const schema = {
      query: { type: 'string', required: true },
      lang: { type: 'string', required: false, default: 'en' },
    };
    const literal = { input_key: 'k', source_type: 'literal' as const, path: null, override: 5 };
    expect(
      inputsOf({ text: 'x' }, [mapping('query', 'payload.text'), mapping('title', 'title'), literal], schema),
    ).toEqual({ query: 'x', k: 5, lang: 'en' });
    const { query } = inputsOf({ text: `${'é'.repeat(20_000)}a` }, [mapping('query', 'text')], schema) as {
      query: string;
    };
    expect(query).toBe('é'.repeat(16_384));
    const { query: odd } = inputsOf(
      { text: `a${'é'.repeat(20_000)}` },
      [mapping('query', 'text')],
      schema,
    ) as { query: string };
    expect(odd).toBe(`a${'é'.repeat(16_383)}`);
  });
});

describe('messageOf', () => {
  it('shows our own words and no others', () => {
    const cause = (errorMessage: unknown) =>
      JSON.stringify({ errorType: 'x', errorMessage, trace: ['at secret (file.ts:1)'] });
    expect(messageOf({ Error: 'plugin_not_deployed', Cause: cause('Deploy it.') })).toBe('Deploy it.');
    expect(messageOf({ Error: 'plugin_not_deployed', Cause: 'not json' })).toBe(
      'The plugin is not deployed.',
    );
    for (const error of [
      { Error: 'TypeError', Cause: cause('x of undefined') },
      { Error: 'States.Timeout', Cause: 'secret' },
      {},
    ]) {
      expect(messageOf(error)).toMatch(/out of time or memory/);
    }
  });
});
