// What a taxonomy changes in one document, and how it reads fields and errors.
import { describe, expect, it } from 'vitest';
import type { StoredDocument } from '../../../functions/core/resources/documents/service.ts';
import { changeFor } from '../../../functions/core/resources/taxonomies/apply.ts';
import type { Placement } from '../../../functions/core/resources/taxonomies/placement.ts';
import { nowhere } from '../../../functions/core/resources/taxonomies/placement.ts';
import { removalFor } from '../../../functions/core/resources/taxonomies/remove.ts';
import type { EnrichmentField, TaxonomyConfig } from '../../../functions/core/resources/taxonomies/store.ts';
import { inputsOf, readField } from '../../../functions/core/resources/taxonomies/subjects.ts';
import { messageOf } from '../../../functions/core/resources/taxonomies/workflow.ts';

const at = '2026-01-01T00:00:00.000Z';
const taking = (merge_mode: EnrichmentField['merge_mode']) => ({
  taxonomy: { id: 'tax_1' },
  version: 3,
  config: {
    retriever_id: 'ret_1',
    input_mappings: [],
    source_collection: { collection_id: 'col_1' },
    enrichment_fields: [{ field_path: 'topic', target_field: 'auto_topic', merge_mode }],
    threshold: null,
  } satisfies TaxonomyConfig,
});
const taxonomy = taking('replace');
const entry = {
  taxonomy_id: 'tax_1',
  version: 2,
  field: 'auto_topic',
  value: 'a',
  score: 0.9,
  matched_document_id: 'doc_r',
  margin: null,
  runner_up: null,
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
const placed = (
  value: string | readonly string[] | undefined,
  merge: EnrichmentField['merge_mode'] = 'replace',
): Placement => ({
  assignments: [
    {
      node_id: 'root',
      label: null,
      level: 1,
      document_id: 'doc_r',
      collection_id: 'col_1',
      score: 0.9,
      value: 'a',
      accepted: value !== undefined,
      runner_up: null,
      margin: null,
      votes: { winner: 1, total: 1, share: 1 },
      values: new Map(value === undefined ? [] : [['auto_topic', { value, merge }]]),
    },
  ],
  decision: undefined,
});
const nearest = placed('a');

function document(
  fields: Record<string, string | readonly string[]>,
  enrichments: readonly object[],
): StoredDocument {
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
    expect(changeFor(taxonomy, document({ text: 'x' }, [other]), nowhere, undefined, at)).toBeUndefined();
    expect(
      changeFor(taxonomy, document({ text: 'x' }, []), placed(undefined), undefined, at),
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
      changeFor(taxonomy, document({ auto_topic: 'a' }, [entry, other]), nowhere, undefined, at),
    ).toMatchObject({ ...gone, remove: ['auto_topic'] });
    expect(
      changeFor(taxonomy, document({ auto_topic: 'mine' }, [entry]), nowhere, undefined, at),
    ).toMatchObject({ ...gone, remove: [] });
  });
});

describe('changeFor of a field that is appended to', () => {
  const appending = taking('append');
  const change = (
    fields: Record<string, string | readonly string[]>,
    added: readonly string[] | undefined,
    values: readonly string[] | undefined,
  ) =>
    changeFor(
      appending,
      document(fields, added ? [{ ...entry, value: added }] : []),
      values ? placed(values, 'append') : nowhere,
      undefined,
      at,
    );

  it('adds to what others have put there, each value once, and states only what it added', () => {
    expect(change({ auto_topic: ['mine', 'a'] }, undefined, ['a', 'b'])).toMatchObject({
      set: { auto_topic: ['mine', 'a', 'b'] },
      provenance: [{ field: 'auto_topic', value: ['b'] }],
    });
    expect(change({}, undefined, ['a'])).toMatchObject({ set: { auto_topic: ['a'] } });
  });

  it('is nothing the second time, and exchanges its own values without touching those of others', () => {
    expect(change({ auto_topic: ['mine', 'a'] }, ['a'], ['a'])).toBeUndefined();
    expect(change({ auto_topic: ['mine', 'a'] }, ['a'], ['c'])).toMatchObject({
      set: { auto_topic: ['mine', 'c'] },
      provenance: [{ value: ['c'] }],
    });
  });

  it('adds what a person decided, too, instead of replacing the list', () => {
    const decision = { action: 'correct' as const, values: { auto_topic: ['b'] }, by: 'key_1', at };
    const change = changeFor(
      appending,
      document({ auto_topic: ['mine', 'a'] }, [{ ...entry, value: ['a'] }]),
      { assignments: [], decision },
      undefined,
      at,
    );
    expect(change).toMatchObject({ set: { auto_topic: ['mine', 'b'] }, provenance: [{ value: ['b'] }] });
  });

  it('takes only its own values away', () => {
    expect(change({ auto_topic: ['mine', 'a'] }, ['a'], undefined)).toMatchObject({
      set: { auto_topic: ['mine'] },
      remove: [],
    });
    expect(change({ auto_topic: ['a'] }, ['a'], undefined)).toMatchObject({
      set: {},
      remove: ['auto_topic'],
    });
  });
});

describe('changeFor of a document that a person has decided about', () => {
  const decided = (action: 'correct' | 'reject', values: Record<string, string>): Placement => ({
    assignments: [],
    decision: { action, values, by: 'key_1', at },
  });

  it('writes the decision with who and when, once', () => {
    const change = changeFor(
      taxonomy,
      document({ auto_topic: 'a' }, [entry]),
      decided('correct', { auto_topic: 'b' }),
      undefined,
      at,
    );
    expect(change).toMatchObject({
      set: { auto_topic: 'b' },
      provenance: [{ value: 'b', score: null, review: { action: 'correct', by: 'key_1', at } }],
    });
    const after = document({ auto_topic: 'b' }, change!.provenance as object[]);
    expect(
      changeFor(taxonomy, after, decided('correct', { auto_topic: 'b' }), undefined, 'later'),
    ).toBeUndefined();
  });

  it('takes the value away after a rejection, and keeps the rejection', () => {
    const change = changeFor(
      taxonomy,
      document({ auto_topic: 'a' }, [entry]),
      decided('reject', {}),
      undefined,
      at,
    );
    expect(change).toMatchObject({
      set: {},
      remove: ['auto_topic'],
      provenance: [{ value: null, review: { action: 'reject' } }],
    });
    const after = document({}, change!.provenance as object[]);
    expect(changeFor(taxonomy, after, decided('reject', {}), undefined, 'later')).toBeUndefined();
  });
});

describe('removalFor', () => {
  it('takes what was written out of a field, and leaves one that somebody has changed', () => {
    const removal = (now: string | readonly string[], written: string | readonly string[]) =>
      removalFor('tax_1', document({ auto_topic: now }, [{ ...entry, value: written }, other]));
    expect(removal('a', 'a')).toMatchObject({ set: {}, remove: ['auto_topic'] });
    expect(removal('mine', 'a')).toMatchObject({ set: {}, remove: [] });
    expect(removal(['mine', 'a', 'b'], ['a', 'b'])).toMatchObject({ set: { auto_topic: ['mine'] } });
    // Not all of it is there any more, so this list is somebody's own.
    expect(removal(['a', 'mine'], ['a', 'b'])).toMatchObject({ set: {}, remove: [] });
    expect(removal('a', 'a')!.provenance_removed).toEqual([{ taxonomy_id: 'tax_1', field: 'auto_topic' }]);
    expect(removalFor('tax_1', document({ kind: 'x' }, [other]))).toBeUndefined();
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
