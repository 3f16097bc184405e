// Queries of the mode "content": whether they are read as a text or as a file, by what the feature is made of.
import { describe, expect, it } from 'vitest';
import { virtualClock } from '../../../functions/core/clock.ts';
import { AppError } from '../../../functions/core/errors.ts';
import { defineRetriever } from '../../../functions/core/retrieval/definition.ts';
import type { ResolvedFeature } from '../../../functions/core/retrieval/ports.ts';
import { runRetriever } from '../../../functions/core/retrieval/run.ts';
import { memoryPort } from './memory-port.ts';

const uri = 'mixpeek://pixels@1.0.0/vec';
const none = 'mixpeek://pixels@1.0.0/nowhere';

/** Runs searches and gives back what the extractor was asked to embed. */
async function embedded(
  made_of: ResolvedFeature['made_of'],
  queries: readonly unknown[],
  inputs: Record<string, unknown> = {},
  more: object = {},
): Promise<string[]> {
  const port = memoryPort({ [uri]: { dims: 1, made_of, embed: () => [1] } }, [
    { document_id: 'd', vectors: { [uri]: [1] } },
  ]);
  const searches = queries.map((query) => ({ feature_uri: uri, query, ...more }));
  const definition = defineRetriever({
    stages: [{ stage_name: 's', config: { stage_id: 'feature_search', parameters: { searches } } }],
  });
  const pagination = { method: 'offset', page_size: 10, page_number: 1 } as const;
  await runRetriever(
    { definition, inputs, pagination } as Parameters<typeof runRetriever>[0],
    port,
    virtualClock(),
  );
  return port.calls.embed.flatMap(({ texts }) => texts);
}
const content = (value: string, mime_type?: string) => ({
  input_mode: 'content',
  value,
  ...(mime_type === undefined ? {} : { mime_type }),
});

describe('content', () => {
  it.each([
    ['text', 'words', undefined, 'words'],
    ['text', 'https://example.com/x', undefined, 'https://example.com/x'],
    ['text', 'AAAA', 'image/png', 'file AAAA'],
    ['binary', 'words', undefined, 'file words'],
    ['binary', 'a caption', 'text/plain', 'a caption'],
    ['both', 'words', undefined, 'words'],
    ['both', 'https://example.com/x', undefined, 'file https://example.com/x'],
    ['both', 'data:image/png;base64,AAAA', undefined, 'file data:image/png;base64,AAAA'],
    ['both', 'AAAA', 'audio/wav', 'file AAAA'],
    ['both', 'https://example.com/x', 'text/uri-list', 'https://example.com/x'],
  ] as const)('of a feature made of %s: %s (%s) is embedded as %s', async (madeOf, value, mime, as) => {
    expect(await embedded(madeOf, [content(value, mime)])).toEqual([as]);
  });

  it('is embedded once for all searches with the same file, and beside texts in one call', async () => {
    const queries = [content('AAAA'), content(' AAAA\n'), { text: 'words' }, content('BBBB')];
    expect(await embedded('binary', queries)).toEqual(['file AAAA', 'words', 'file BBBB']);
  });

  it('takes its value and its media type from inputs', async () => {
    const query = content('{{INPUT.image}}', '{{INPUT.type}}');
    expect(await embedded('text', [query], { image: 'AAAA', type: 'image/png' })).toEqual(['file AAAA']);
    expect(await embedded('binary', [query], { image: 'AAAA', type: null }, { optional: true })).toEqual([]);
  });

  it('is left out where it is optional and empty', async () => {
    for (const image of ['', '  '])
      expect(await embedded('binary', [content('{{INPUT.image}}')], { image }, { optional: true })).toEqual(
        [],
      );
  });

  it.each([
    ['what cannot be loaded', 'binary', content('broken'), 'query_content_invalid'],
    ['nothing', 'binary', content('  '), 'query_empty'],
    ['what is no text', 'binary', content('{{INPUT.number}}'), 'query_wrong_type'],
    ['a text that is too long', 'text', content('x'.repeat(32 * 1024 + 1)), 'query_too_long'],
    ['a media type that is none', 'binary', content('AAAA', '{{INPUT.number}}'), 'query_wrong_type'],
  ] as const)('that is %s is a fault of its search', async (_, madeOf, query, type) => {
    const error = await embedded(madeOf, [query], { number: 7 }).catch((thrown: unknown) => thrown);
    expect(error).toBeInstanceOf(AppError);
    const [fault] = (error as AppError).fields;
    expect([fault!.type, fault!.location.slice(-3)]).toEqual([type, ['searches', 0, 'query']]);
  });

  it('of a feature that no collection holds is not even loaded', async () => {
    expect(await embedded('binary', [content('broken')], {}, { feature_uri: none })).toEqual([]);
  });

  it.each(['png', 'image/', 'image/png; q=1', 7])(
    'refuses the media type %j in a definition',
    (mime_type) => {
      const searches = [{ feature_uri: uri, query: { input_mode: 'content', value: 'AAAA', mime_type } }];
      expect(() =>
        defineRetriever({
          stages: [{ stage_name: 's', config: { stage_id: 'feature_search', parameters: { searches } } }],
        }),
      ).toThrow(AppError);
    },
  );
});
