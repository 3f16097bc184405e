// The texts that are measured with: as many different ones as asked for, made from the sample articles, always the same.
import { readSamples } from '../local/demo/samples.ts';
import { randomNumbers } from './random.ts';

const sentencesOf = (text: string): string[] =>
  text.match(/[^.!?]+[.!?]+/g)?.map((one) => one.trim()) ?? [text];

/**
 * Different texts of three sentences from three articles, with a number of its own in each.
 *
 * @param count how many
 * @param seed another seed gives other texts
 * @returns about 60 words each
 */
export function makeTexts(count: number, seed = 1): string[] {
  const { articles, newArticles } = readSamples();
  const sentences = [...articles, ...newArticles].flatMap((article) => sentencesOf(article.text));
  const random = randomNumbers(seed);
  const pick = () => sentences[Math.floor(random() * sentences.length)]!;
  return Array.from({ length: count }, (_, i) => `Note ${seed}-${i}. ${pick()} ${pick()} ${pick()}`);
}

/** Short searches of three words each, all different. @see makeTexts */
export function makeQueries(count: number, seed = 1): string[] {
  const words = [
    ...new Set(
      makeTexts(200, 7)
        .join(' ')
        .toLowerCase()
        .match(/[a-z]{5,}/g) ?? [],
    ),
  ].sort();
  const random = randomNumbers(seed * 7919);
  const pick = () => words[Math.floor(random() * words.length)]!;
  return Array.from({ length: count }, (_, i) => `${pick()} ${pick()} ${pick()} ${seed}-${i}`);
}
