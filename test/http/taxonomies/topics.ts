// A library with a retriever and articles whose topics taxonomies give to others.
import { expect } from 'vitest';
import type { Article, Library } from '../retrievers/library.ts';
import { makeLibrary, searchStages } from '../retrievers/library.ts';

export const tutorialBody = {
  taxonomy_name: 'article-topics',
  taxonomy_type: 'flat',
  retriever_id: 'text_search',
  collection_id: 'articles',
  input_mappings: [{ source: 'payload.text', target: 'query' }],
  enrichment_fields: [{ source: 'payload.topic', target: 'auto_topic' }],
  threshold: 0.7,
  execution_mode: 'materialize',
};

export async function makeTopics(
  articles: readonly Article[] = [],
): Promise<Library & { readonly ids: string[] }> {
  const library = await makeLibrary();
  const ids = articles.length > 0 ? await library.publish(articles) : [];
  await library.post('retrievers', { name: 'text_search', stages: searchStages() });
  return { ...library, ids };
}

export async function create(library: Library, body: Record<string, unknown> = {}): Promise<string> {
  const reply = await library.post('taxonomies', { ...tutorialBody, ...body });
  expect(reply.status, JSON.stringify(reply.body)).toBe(200);
  return reply.body.taxonomy_id;
}

export const documentsPath = '/v1/namespaces/{ns}/collections/articles/documents';
export const read = async (library: Library, id: string) =>
  (await library.call('GET', `${documentsPath}/${id}`)).body;
export const topicsOf = async (library: Library, ids: readonly string[]) =>
  Promise.all(ids.map(async (id) => (await read(library, id)).auto_topic ?? null));
export const taxonomy = async (library: Library, id = 'article-topics') =>
  (await library.call('GET', `/v1/namespaces/{ns}/taxonomies/${id}`)).body;

/** Two references, an article near the first, one between both, one near none, and one without a vector. */
export const articles: readonly Article[] = [
  { text: 'quantum quantum', metadata: { topic: 'physics' } },
  { text: 'cook cook', metadata: { topic: 'kitchen' } },
  { text: 'quantum quantum quantum ball' },
  { text: 'cook cook cook quantum' },
  { text: 'seed' },
  { text: 'nothing of that' },
];
