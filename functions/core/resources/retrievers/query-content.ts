// The bytes of a query that is a file: fetched from a URL of the caller, or decoded from what the request holds.
import { createHash } from 'node:crypto';
import type { NsCtx } from '../../context.ts';
import { EgressFailure, send } from '../../egress/send.ts';
import type { ContentFault, QueryContent } from '../../retrieval/index.ts';

/** What a plugin gets as a query, at most. */
const contentBytesMax = 10 * 1024 * 1024;
const fetchMsMax = 10_000;
const connectMsMax = 5_000;

type Loaded = QueryContent | { readonly fault: ContentFault };

const unknownType = 'application/octet-stream';

/** First bytes that tell a format. @see https://mimesniff.spec.whatwg.org */
const signatures: readonly (readonly [mime: string, at: number, bytes: string])[] = [
  ['image/png', 0, '\x89PNG\r\n\x1a\n'],
  ['image/jpeg', 0, '\xff\xd8\xff'],
  ['image/gif', 0, 'GIF8'],
  ['image/webp', 8, 'WEBPVP'],
  ['image/bmp', 0, 'BM'],
  ['image/tiff', 0, 'II*\x00'],
  ['image/tiff', 0, 'MM\x00*'],
  ['application/pdf', 0, '%PDF-'],
  ['audio/wav', 8, 'WAVE'],
  ['audio/mpeg', 0, 'ID3'],
  ['audio/flac', 0, 'fLaC'],
  ['audio/ogg', 0, 'OggS\x00'],
];

function sniff(bytes: Uint8Array): string {
  const head = Buffer.from(bytes.subarray(0, 16)).toString('latin1');
  return signatures.find(([, at, text]) => head.startsWith(text, at))?.[0] ?? unknownType;
}

function contentOf(bytes: Uint8Array, mimeType: string | undefined, url?: string): Loaded {
  if (bytes.length === 0)
    return { fault: { type: 'query_content_invalid', message: 'the content of the query has no bytes' } };
  return {
    bytes,
    // What the bytes say is more than a server's shrug.
    mime_type: mimeType && mimeType !== unknownType ? mimeType.toLowerCase() : sniff(bytes),
    digest: createHash('sha256').update(bytes).digest('hex'),
    ...(url === undefined ? {} : { url }),
  };
}

function tooLarge(bytes: number | string): Loaded {
  return {
    fault: {
      type: 'query_content_too_large',
      message: `the content of the query has ${bytes} bytes; at most ${contentBytesMax} are accepted`,
    },
  };
}

/** Padding and white space aside, base64 in either alphabet, or nothing. */
function decode(text: string): Buffer | undefined {
  const bare = text.replaceAll(/\s/g, '').replace(/={1,2}$/, '');
  return /^[A-Za-z0-9+/]*$|^[A-Za-z0-9_-]*$/.test(bare) && bare.length % 4 !== 1
    ? Buffer.from(bare, 'base64')
    : undefined;
}

const accepted = 'give an https URL, a data: URI such as data:image/png;base64,..., or base64';

function fromDataUri(source: string, mimeType: string | undefined): Loaded {
  const comma = source.indexOf(',');
  const [declared = '', ...parameters] = source.slice('data:'.length, Math.max(0, comma)).split(';');
  const isBase64 = parameters.at(-1)?.trim().toLowerCase() === 'base64';
  const bytes = comma > 0 && isBase64 ? decode(source.slice(comma + 1)) : undefined;
  if (bytes === undefined) {
    const message = isBase64
      ? 'the data: URI does not hold base64 behind its comma'
      : 'the data: URI has no ";base64,"';
    return { fault: { type: 'query_content_invalid', message, fix: accepted } };
  }
  if (bytes.length > contentBytesMax) return tooLarge(bytes.length);
  const isType = /^[a-z]+\/[a-z0-9][a-z0-9.+-]*$/i.test(declared.trim());
  return contentOf(bytes, mimeType ?? (isType ? declared.trim() : undefined));
}

async function fromUrl(
  ctx: NsCtx,
  url: string,
  mimeType: string | undefined,
  deadlineMs: number,
): Promise<Loaded> {
  const refuse = (why: string): Loaded => ({
    fault: {
      type: 'query_url_refused',
      message: `the URL of the query cannot be fetched: ${why}`,
      fix: 'give an https URL that anybody can read, or send the content as base64',
    },
  });
  const totalTimeoutMs = Math.max(1, Math.min(fetchMsMax, deadlineMs - ctx.ports.clock.now()));
  try {
    const received = await send({
      method: 'GET',
      url,
      connectTimeoutMs: Math.min(connectMsMax, totalTimeoutMs),
      totalTimeoutMs,
      answerBytesMax: contentBytesMax,
      allowLoopback: ctx.ports.settings.allowLoopback,
    });
    if (received.status !== 200)
      return refuse(`the server answered ${received.status}; redirects are not followed`);
    if (received.truncated) return tooLarge(`more than ${contentBytesMax}`);
    const type = received.headers['content-type'];
    const declared = typeof type === 'string' ? type.split(';')[0]!.trim() : undefined;
    return contentOf(received.body, mimeType ?? declared, url);
  } catch (error) {
    if (error instanceof EgressFailure) return refuse(error.message);
    throw error;
  }
}

/**
 * The bytes of a query.
 *
 * A URL is called under the guards of `core/egress`: https and public addresses only, 10 s, 10 MB.
 *
 * @param source an http(s) URL, a `data:` URI with base64, or base64
 * @param mimeType goes before what the source says of itself
 * @param deadlineMs on the context's clock
 */
export async function loadContent(
  ctx: NsCtx,
  source: string,
  mimeType: string | undefined,
  deadlineMs: number,
): Promise<Loaded> {
  if (/^https?:\/\//i.test(source)) {
    // What calls out in a namespace's name waits for the check that it is the caller's.
    await ctx.entered;
    return fromUrl(ctx, source, mimeType, deadlineMs);
  }
  if (/^data:/i.test(source)) return fromDataUri(source, mimeType);
  const bytes = decode(source);
  if (bytes === undefined) {
    return {
      fault: {
        type: 'query_content_invalid',
        message: `the query is neither a URL nor base64: ${JSON.stringify(source.slice(0, 40))}`,
        fix: accepted,
      },
    };
  }
  return bytes.length > contentBytesMax ? tooLarge(bytes.length) : contentOf(bytes, mimeType);
}
