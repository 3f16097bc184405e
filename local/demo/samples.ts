// The sample articles of examples/.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { projectFolder } from '../emulator.ts';

export interface Article {
  readonly id: string;
  readonly title: string;
  readonly text: string;
  /** Only the labelled third has one. */
  readonly topic?: string;
}

export interface SampleQuery {
  readonly query: string;
  readonly topic: string;
}

const examples = join(projectFolder, 'examples');

function readLines<T>(name: string): T[] {
  return readFileSync(join(examples, name), 'utf8')
    .split('\n')
    .filter((line) => line.trim() !== '')
    .map((line) => JSON.parse(line) as T);
}

export interface Samples {
  readonly articles: readonly Article[];
  readonly newArticles: readonly Article[];
  readonly queries: readonly SampleQuery[];
  /** The true topic of every article without a label: for scoring only. */
  readonly trueTopics: ReadonlyMap<string, string>;
}

export function readSamples(): Samples {
  return {
    articles: readLines<Article>('articles.jsonl'),
    newArticles: readLines<Article>('new-articles.jsonl'),
    queries: JSON.parse(readFileSync(join(examples, 'queries.json'), 'utf8')) as SampleQuery[],
    trueTopics: new Map(
      readLines<{ id: string; topic: string }>('topics.jsonl').map((row) => [row.id, row.topic]),
    ),
  };
}
