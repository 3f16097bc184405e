// Which URLs may be called: text that hides an address, a scheme, a port or a user is refused before anything is resolved.
import { describe, expect, it } from 'vitest';
import { findTargetFault } from '../../../functions/core/egress/target.ts';
import { allowedUrls, refusedUrls } from './urls.ts';

/** Loopback as the URL parser sees it, in whatever spelling. */
function isLoopback(text: string): boolean {
  return URL.canParse(text) && /^(localhost|\[::1\]|127\..*)$/.test(new URL(text).hostname);
}

describe('the corpus', () => {
  it('holds 80 URLs and more, each once', () => {
    expect(refusedUrls.length).toBeGreaterThanOrEqual(80);
    expect(new Set(refusedUrls).size).toBe(refusedUrls.length);
  });
});

describe('a URL is refused', () => {
  it.each(refusedUrls)('%j', (url) => {
    const fault = findTargetFault(url, false);
    expect(fault).toBeDefined();
    expect(fault!.message).not.toBe('');
  });
});

describe('a URL is accepted', () => {
  it.each(allowedUrls)('%j', (url) => {
    expect(findTargetFault(url, false)).toBeUndefined();
  });
});

describe('the local stage', () => {
  it.each([
    'http://127.0.0.1:8080/hook',
    'http://localhost:3000/',
    'https://127.0.0.1/',
    'http://[::1]:9000/',
    'http://127.1.2.3:1/',
    'http://2130706433:8080/',
  ])('may reach loopback: %s', (url) => {
    expect(findTargetFault(url, true)).toBeUndefined();
    expect(findTargetFault(url, false)).toBeDefined();
  });

  it.each([
    ...refusedUrls.filter((url) => !isLoopback(url)),
    'ftp://127.0.0.1/',
    'http://user@127.0.0.1/',
    'http://localhost.example.com/',
    'http://127.0.0.1.nip.io/',
  ])('reaches nothing else: %j', (url) => {
    expect(findTargetFault(url, true)).toBeDefined();
  });
});
