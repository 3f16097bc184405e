// Hierarchies over HTTP: explicit nodes, paths that stand in the references, and their refusals.
import { describe, expect, it } from 'vitest';
import { expectError, faults } from '../expect.ts';
import type { Article, Library } from '../retrievers/library.ts';
import { runAll } from './runs.ts';
import { create, makeTopics, read, tutorialBody } from './topics.ts';

const execute = async (library: Library, id: string, body: Record<string, unknown>) => {
  const reply = await library.post(`taxonomies/${id}/execute`, body);
  expect(reply.status, JSON.stringify(reply.body)).toBe(200);
  return reply.body;
};

/** Fields are references of two levels: a field of study, and a subject that says which field it is under. */
const levels: readonly Article[] = [
  { text: 'quantum', metadata: { area: 'science' } },
  { text: 'cook', metadata: { area: 'home' } },
  { text: 'quantum ball', metadata: { subject: 'mechanics', under: 'science' } },
  { text: 'quantum quantum ball ball', metadata: { subject: 'wrong', under: 'home' } },
  { text: 'cook ball', metadata: { subject: 'baking', under: 'home' } },
];

const hierarchy = (
  link: unknown = { field: 'under', parent_field: 'area' },
): [Record<string, unknown>, Record<string, unknown>] => [
  {
    node_id: 'area',
    collection_id: 'articles',
    label: 'Area',
    enrichment_fields: [{ source: 'area', target: 'auto_area' }],
    threshold: 0.6,
  },
  {
    node_id: 'subject',
    parent_node_id: 'area',
    collection_id: 'articles',
    enrichment_fields: [{ source: 'subject', target: 'auto_subject' }],
    threshold: 0.9,
    link,
  },
];

const tree = (nodes: unknown = hierarchy()) => ({
  taxonomy_name: 'levels',
  retriever_id: 'text_search',
  input_mappings: [{ source: 'text', target: 'query' }],
  hierarchy: nodes,
});

describe('explicit nodes', () => {
  it('are passed level by level: children of the matched parent only, and the fields of every level stay', async () => {
    const library = await makeTopics(levels);
    const made = await library.post('taxonomies', tree());
    expect(made.status, JSON.stringify(made.body)).toBe(200);
    expect(made.body).toMatchObject({
      taxonomy_type: 'hierarchical',
      targets: ['auto_area', 'auto_subject'],
      config: { hierarchical_nodes: [{ node_id: 'area' }, { node_id: 'subject', link: { field: 'under' } }] },
    });
    const { matches } = await execute(library, 'levels', {
      documents: [
        { text: 'quantum quantum ball ball' },
        { text: 'quantum quantum quantum ball' },
        { text: 'ball' },
      ],
    });
    // The nearest subject of the first stands under another area.
    expect(matches[0]).toMatchObject({
      fields: { auto_area: 'science', auto_subject: 'mechanics' },
      node_id: 'subject',
      assignments: [
        { node_id: 'area', level: 1, label: 'Area', value: 'science', accepted: true },
        { node_id: 'subject', level: 2, value: 'mechanics', accepted: true, runner_up: null },
      ],
    });
    // Near an area, but no subject of it is near enough.
    expect(matches[1].fields).toEqual({ auto_area: 'science' });
    expect(matches[1].assignments[1]).toMatchObject({ node_id: 'subject', accepted: false, fields: {} });
    // What does not pass the root is not asked about its children.
    expect(matches[2]).toMatchObject({ fields: {}, assignments: [{ node_id: 'area', accepted: false }] });
    const nodes = await library.call('GET', '/v1/namespaces/{ns}/taxonomies/levels/nodes');
    expect(
      nodes.body.results.map((node: { node_id: string; level: number }) => [node.node_id, node.level]),
    ).toEqual([
      ['area', 1],
      ['subject', 2],
    ]);
  });

  it('that are linked have no match below a reference without the shared field', async () => {
    const library = await makeTopics(levels);
    await library.post('taxonomies', tree(hierarchy({ field: 'under', parent_field: 'code' })));
    const { matches } = await execute(library, 'levels', { documents: [{ text: 'quantum quantum ball' }] });
    expect(matches[0].fields).toEqual({ auto_area: 'science' });
    expect(matches[0].assignments).toHaveLength(1);
  });

  it('need no link: then all references of a child are compared', async () => {
    const library = await makeTopics(levels);
    expect((await library.post('taxonomies', tree(hierarchy(null)))).status).toBe(200);
    const { matches } = await execute(library, 'levels', {
      documents: [{ text: 'quantum quantum ball ball' }],
    });
    expect(matches[0].fields).toEqual({ auto_area: 'science', auto_subject: 'mechanics' });
    expect(matches[0].assignments[1].runner_up).toMatchObject({ value: 'wrong', score: 1 });
  });

  it('are taken as hierarchical_nodes, named by their collections', async () => {
    const library = await makeTopics(levels);
    const more = await library.addCollection('subjects', ['embedder']);
    const made = await library.post('taxonomies', {
      taxonomy_name: 'by-collection',
      config: {
        taxonomy_type: 'hierarchical',
        retriever_id: 'text_search',
        input_mappings: [{ source: 'text', target: 'query' }],
        hierarchical_nodes: [
          { collection_id: 'articles', enrichment_fields: [{ source: 'area', target: 'auto_area' }] },
          {
            collection_id: more.id,
            parent_collection_id: 'articles',
            enrichment_fields: [{ source: 'subject', target: 'auto_subject' }],
            label: 'Subjects',
          },
        ],
      },
    });
    expect(made.status, JSON.stringify(made.body)).toBe(200);
    const { matches } = await execute(library, 'by-collection', { documents: [{ text: 'cook' }] });
    expect(matches[0].fields).toEqual({ auto_area: 'home' });
    expectError(
      await library.call('DELETE', `/v1/namespaces/{ns}/collections/${more.id}`),
      'collection_in_use',
    );
  });

  it('of one level that share a target compete by score', async () => {
    const library = await makeTopics([
      ...levels,
      { text: 'quantum ball ball', metadata: { hobby: 'juggling' } },
    ]);
    const [area, subject] = hierarchy(null);
    const hobby = {
      ...subject,
      node_id: 'hobby',
      enrichment_fields: [{ source: 'hobby', target: 'auto_subject' }],
    };
    const made = await library.post('taxonomies', tree([area, subject, hobby]));
    expect(made.status, JSON.stringify(made.body)).toBe(200);
    const { matches } = await execute(library, 'levels', {
      documents: [{ text: 'quantum ball ball seed' }, { text: 'quantum ball seed' }],
    });
    expect(matches[0].fields).toEqual({});
    const near = await execute(library, 'levels', {
      documents: [{ text: 'quantum quantum quantum ball ball ball ball ball' }, { text: 'quantum ball' }],
    });
    expect(near.matches.map((match: { fields: unknown }) => match.fields)).toEqual([
      {},
      { auto_area: 'science', auto_subject: 'mechanics' },
    ]);
    const patched = await library.call('PATCH', '/v1/namespaces/{ns}/taxonomies/levels', {
      hierarchy: [{ ...area, threshold: 0.3 }, subject, hobby],
    });
    expect(patched.status, JSON.stringify(patched.body)).toBe(200);
    const { matches: again } = await execute(library, 'levels', {
      documents: [{ text: 'quantum ball ball' }],
    });
    expect(again[0].fields).toEqual({ auto_area: 'science', auto_subject: 'juggling' });
    expect(again[0].assignments.map((one: { node_id: string }) => one.node_id)).toEqual(['area', 'hobby']);
  });

  it('say the same of many documents together, whose references are read by columns, and one by one', async () => {
    const words = ['quantum', 'cook', 'ball', 'seed'];
    const textOf = (i: number) =>
      words.map((word, n) => `${word} `.repeat(Math.floor(i / 4 ** n) % 4)).join('') || 'quantum';
    const library = await makeTopics(
      Array.from(
        { length: 200 },
        (_, i): Article => ({
          text: textOf(i + 1),
          metadata:
            i % 2 === 0 ? { area: `area ${i % 5}` } : { subject: `subject ${i % 7}`, under: `area ${i % 5}` },
        }),
      ),
    );
    await library.post('taxonomies', { ...tree(), top_k: 3, vote: 'weighted' });
    const documents = Array.from({ length: 100 }, (_, i) => ({ text: textOf(2 * i + 3) }));
    const together = (await execute(library, 'levels', { documents })).matches;
    const matched = together.flatMap((match: { assignments: { document_id: string }[] }) =>
      match.assignments.map((one) => one.document_id),
    );
    expect(new Set(matched).size).toBeGreaterThan(100);
    for (const [i, document] of documents.entries())
      expect((await execute(library, 'levels', { documents: [document] })).matches[0]).toEqual(together[i]);
  });

  it('are refused where they are no tree, each fault at its node', async () => {
    const library = await makeTopics();
    const [area, subject] = hierarchy(null);
    const refused = async (nodes: unknown[], more: Record<string, unknown> = {}) =>
      faults(await library.post('taxonomies', { ...tree(nodes), ...more }));
    expect(await refused([area, { ...subject, parent_node_id: 'nobody' }])).toEqual([
      'body.hierarchy.1: parent_unknown',
    ]);
    expect(await refused([area, { ...subject, parent_node_id: null }])).toEqual([
      'body.hierarchy.1: roots_several',
    ]);
    expect(await refused([{ ...area, parent_node_id: 'subject' }, subject])).toEqual([
      'body.hierarchy.0: cycle',
      'body.hierarchy.1: cycle',
    ]);
    expect(await refused([area, { ...subject, node_id: 'area' }])).toEqual([
      'body.hierarchy.1: node_repeated',
    ]);
    expect(
      await refused([area, { ...subject, enrichment_fields: [{ source: 'subject', target: 'auto_area' }] }]),
    ).toEqual(['body.hierarchy.1.enrichment_fields.0: field_repeated']);
    expect(await refused([{ ...area, collection_id: 'nowhere' }])).toEqual([
      'body.hierarchy.0.collection_id: collection_unknown',
    ]);
    expect(await refused([area], { collection_id: 'articles' })).toEqual([
      'body.collection_id: not_supported',
    ]);
    expect((await library.post('taxonomies', tree())).status).toBe(200);
    const patched = await library.call('PATCH', '/v1/namespaces/{ns}/taxonomies/levels', { threshold: 0.5 });
    expect(faults(patched)).toEqual(['body.threshold: nodes_needed']);
    expect(await refused([area], { path_field: 'area' })).toEqual(['body.path_field: wrong_value']);
    expect(await refused([area], { inference_strategy: 'llm' })).toEqual([
      'body.inference_strategy: wrong_value',
    ]);
  });
});

const shop = [
  { text: 'quantum', metadata: { category: 'electronics/phones/android' } },
  { text: 'quantum quantum ball', metadata: { category: 'electronics/phones/ios' } },
  { text: 'quantum ball ball ball', metadata: { category: 'electronics/tablets' } },
  { text: 'cook', metadata: { category: 'home / kitchen' } },
];
const byPath = {
  taxonomy_name: 'shop',
  retriever_id: 'text_search',
  collection_id: 'articles',
  input_mappings: [{ source: 'text', target: 'query' }],
  path_field: 'category',
  path_target: 'auto_topic',
};

describe('a path in the references', () => {
  it('gives the deepest prefix that votes and thresholds carry, with a field for each level', async () => {
    const library = await makeTopics(shop);
    const made = await library.post('taxonomies', {
      ...byPath,
      top_k: 3,
      vote: 'majority',
      min_share: 0.6,
      threshold: 0.3,
      level_fields: ['department', 'kind'],
    });
    expect(made.status, JSON.stringify(made.body)).toBe(200);
    expect(made.body).toMatchObject({
      taxonomy_type: 'hierarchical',
      targets: ['auto_topic', 'department', 'kind'],
    });
    const { matches } = await execute(library, 'shop', {
      documents: [{ text: 'quantum quantum quantum ball' }],
    });
    // Three electronics, two phones, one of each kind.
    expect(matches[0].fields).toEqual({
      auto_topic: 'electronics/phones',
      department: 'electronics',
      kind: 'phones',
    });
    expect(
      matches[0].assignments.map((one: { value: string; accepted: boolean; votes: { share: number } }) => [
        one.value,
        one.accepted,
        one.votes.share,
      ]),
    ).toEqual([
      ['electronics', true, 1],
      ['electronics/phones', true, 0.666667],
      ['electronics/phones/ios', false, 0.333333],
    ]);
  });

  it('can ask more of deeper levels, and lists its nodes with their references', async () => {
    const library = await makeTopics(shop);
    await library.post('taxonomies', { ...byPath, level_thresholds: [0.5, 0.5, 0.995] });
    const { matches } = await execute(library, 'shop', {
      documents: [{ text: 'quantum' }, { text: 'quantum quantum quantum ball' }, { text: 'cook cook' }],
    });
    expect(matches.map((match: { fields: { auto_topic: string } }) => match.fields.auto_topic)).toEqual([
      'electronics/phones/android',
      'electronics/phones',
      'home/kitchen',
    ]);
    const nodes = await library.call('GET', '/v1/namespaces/{ns}/taxonomies/shop/nodes?limit=100');
    expect(
      nodes.body.results.map((node: Record<string, unknown>) => [
        node.node_id,
        node.parent_node_id,
        node.num_members,
      ]),
    ).toEqual([
      ['electronics', null, 3],
      ['home', null, 1],
      ['electronics/phones', 'electronics', 2],
      ['electronics/tablets', 'electronics', 1],
      ['home/kitchen', 'home', 1],
      ['electronics/phones/android', 'electronics/phones', 1],
      ['electronics/phones/ios', 'electronics/phones', 1],
    ]);
  });

  it('is written into documents with its levels and taken away again where it gets shorter', async () => {
    const library = await makeTopics([...shop, { text: 'quantum quantum' }]);
    await library.post('taxonomies', { ...byPath, threshold: 0.5, execution_mode: 'materialize' });
    const done = new Set<string>();
    await runAll(library, done);
    const id = library.ids[4]!;
    const document = await read(library, id);
    expect(document).toMatchObject({
      auto_topic: 'electronics/phones/android',
      auto_topic_1: 'electronics',
      auto_topic_2: 'phones',
      auto_topic_3: 'android',
    });
    expect(document._internal.enrichments).toContainEqual(
      expect.objectContaining({ field: 'auto_topic_2', node_id: 'electronics/phones', level: 2, score: 1 }),
    );
    library.ports.clock.advance(1_000);
    await library.call('PATCH', '/v1/namespaces/{ns}/taxonomies/shop', { level_thresholds: [0.5, 0.5, 1] });
    await library.call('PATCH', `/v1/namespaces/{ns}/collections/articles/documents/${library.ids[0]}`, {
      category: 'electronics/phones',
    });
    await runAll(library, done);
    const after = await read(library, id);
    expect(after.auto_topic).toBe('electronics/phones');
    expect(after).not.toHaveProperty('auto_topic_3');
  });

  it('can be a field for each level', async () => {
    const library = await makeTopics([
      { text: 'quantum', metadata: { department: 'electronics', kind: 'phones' } },
      { text: 'cook', metadata: { department: 'home' } },
    ]);
    const { path_field: _, path_target: __, ...rest } = byPath;
    const made = await library.post('taxonomies', {
      ...rest,
      inference_strategy: 'schema',
      path_fields: ['department', 'kind'],
    });
    expect(made.status, JSON.stringify(made.body)).toBe(200);
    const { matches } = await execute(library, 'shop', {
      documents: [{ text: 'quantum' }, { text: 'cook' }],
    });
    expect(matches.map((match: { fields: unknown }) => match.fields)).toEqual([
      { auto_path: 'electronics/phones', auto_department: 'electronics', auto_kind: 'phones' },
      { auto_path: 'home', auto_department: 'home' },
    ]);
    expect(
      faults(await library.post('taxonomies', { ...rest, taxonomy_name: 'x', inference_strategy: 'schema' })),
    ).toContain('body.path_fields: missing');
  });
});

describe('votes', () => {
  it('let several references decide, and say how', async () => {
    const library = await makeTopics([
      { text: 'quantum', metadata: { topic: 'outlier' } },
      { text: 'quantum quantum quantum ball', metadata: { topic: 'physics' } },
      { text: 'quantum quantum ball', metadata: { topic: 'physics' } },
    ]);
    await create(library, { execution_mode: 'on_demand', threshold: 0.5 });
    const ask = () => execute(library, 'article-topics', { inputs: { query: 'quantum' } });
    expect((await ask()).matches[0]).toMatchObject({
      fields: { auto_topic: 'outlier' },
      score: 1,
      runner_up: { document_id: library.ids[1], value: 'physics', score: 0.948683 },
      margin: 0.051317,
    });
    const patch = (body: object) =>
      library.call('PATCH', '/v1/namespaces/{ns}/taxonomies/article-topics', body);
    expect((await patch({ top_k: 3 })).body.config).toMatchObject({ vote: 'weighted', top_k: 3 });
    expect((await ask()).matches[0]).toMatchObject({
      fields: { auto_topic: 'physics' },
      matched_document_id: library.ids[1],
      score: 0.948683,
      margin: -0.051317,
      assignments: [{ votes: { winner: 1.84311, total: 2.84311, share: 0.648272 } }],
    });
    expect((await patch({ min_share: 0.7 })).status).toBe(200);
    expect((await ask()).matches[0]).toMatchObject({ fields: {}, assignments: [{ accepted: false }] });
    expect(faults(await patch({ vote: 'best', top_k: 5 }))).toEqual(['body.top_k: wrong_value']);
  });

  it('collect the values of all references that count where a field is appended to', async () => {
    const library = await makeTopics([
      { text: 'quantum', metadata: { topic: 'a', tag: 'x' } },
      { text: 'quantum quantum quantum ball', metadata: { topic: 'a', tag: 'y' } },
      { text: 'ball', metadata: { topic: 'b', tag: 'z' } },
      { text: 'quantum quantum' },
    ]);
    await create(library, {
      top_k: 3,
      threshold: 0.5,
      enrichment_fields: [
        { source: 'topic', target: 'auto_topic' },
        { field_path: 'tag', target_field: 'tags', merge_mode: 'append' },
      ],
    });
    const alone = await execute(library, 'article-topics', { documents: [{ text: 'quantum quantum' }] });
    expect(alone.matches[0].fields).toEqual({ auto_topic: 'a', tags: ['x', 'y'] });
    await runAll(library);
    expect(await read(library, library.ids[3]!)).toMatchObject({ auto_topic: 'a', tags: ['x', 'y'] });
    await library.call('DELETE', '/v1/namespaces/{ns}/taxonomies/article-topics?remove_enrichments=true');
    await runAll(library, new Set());
    const after = await read(library, library.ids[3]!);
    expect(after).not.toHaveProperty('tags');
    expect(after._internal.enrichments).toEqual([]);
  });

  it('take several inputs, literals among them, through every search of the retriever', async () => {
    const library = await makeTopics([
      { text: 'quantum', metadata: { topic: 'physics' } },
      { text: 'cook', metadata: { topic: 'kitchen' } },
    ]);
    const [stage] = tutorialStages();
    await library.post('retrievers', { name: 'both', stages: [stage] });
    const made = await library.post('taxonomies', {
      ...tutorialBody,
      retriever_id: 'both',
      threshold: null,
      execution_mode: 'on_demand',
      input_mappings: [
        { source: 'title', target: 'title' },
        { input_key: 'text', source_type: 'literal', override: 'cook cook quantum' },
      ],
    });
    expect(made.status, JSON.stringify(made.body)).toBe(200);
    const { matches, warnings } = await execute(library, 'article-topics', {
      documents: [{ title: 'cook' }, { title: 'quantum' }, { other: 'no title' }],
    });
    expect(warnings).toEqual([
      'Nothing could be compared for documents without a text in the field "title", which is the input "title".',
    ]);
    const bare = await execute(library, 'article-topics', { inputs: { titel: 'cook', text: 'cook' } });
    expect(bare.warnings).toEqual(['Nothing could be compared: the inputs lack a text for "title".']);
    for (const title of ['', 5, ['cook']]) {
      const odd = await execute(library, 'article-topics', { documents: [{ title }] });
      expect(odd.warnings).toEqual([
        'Nothing could be compared for documents without a text in the field "title", which is the input "title".',
      ]);
    }
    expect(matches.map((match: { fields: unknown }) => match.fields)).toEqual([
      { auto_topic: 'kitchen' },
      { auto_topic: 'physics' },
      {},
    ]);
  });
});

/** Two searches with an input each; the title weighs more. */
function tutorialStages() {
  const search = (input: string, weight: number) => ({
    feature_uri: 'mixpeek://embedder@1.0.0/embedder_embedding',
    query: `{{INPUT.${input}}}`,
    weight,
  });
  return [
    {
      stage_name: 'vector_search',
      stage_type: 'filter',
      config: {
        stage_id: 'feature_search',
        parameters: { searches: [search('title', 1), search('text', 0.5)], fusion: 'weighted' },
      },
    },
  ];
}
