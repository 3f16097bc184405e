// Which URLs Granary may call for its users: webhooks, and blobs that are given by URL. Reliability rules, section 6.
import { isIP } from 'node:net';

export interface TargetFault {
  readonly message: string;
  readonly fix?: string;
}

const portsAllowed = new Set(['', '443', '8443']);
const urlCharactersMax = 2048;

/** Host names that are loopback or never public, whatever a resolver says. */
const localNames = /(^|\.)(localhost|local|internal|localdomain|home\.arpa)\.?$/i;

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '[::1]' || /^127(\.\d{1,3}){3}$/.test(host);
}

/** Private, loopback, link-local, multicast, documentation and other ranges that no receiver on the internet has. */
function isPrivateLiteral(host: string): boolean {
  const bare = host.replace(/^\[|\]$/g, '');
  const version = isIP(bare);
  if (version === 4) {
    const [a, b, c] = bare.split('.').map(Number) as [number, number, number, number];
    return (
      a === 0 ||
      a === 10 ||
      a === 127 ||
      a >= 224 ||
      (a === 100 && b >= 64 && b <= 127) ||
      (a === 169 && b === 254) ||
      (a === 172 && b >= 16 && b <= 31) ||
      (a === 192 && b === 168) ||
      (a === 192 && b === 0 && (c === 0 || c === 2)) ||
      (a === 192 && b === 88 && c === 99) ||
      (a === 198 && (b === 18 || b === 19)) ||
      (a === 198 && b === 51 && c === 100) ||
      (a === 203 && b === 0 && c === 113)
    );
  }
  // Global unicast is 2000::/3; inside it, documentation, Teredo and 6to4 hide other addresses.
  if (version === 6)
    return !/^[23][0-9a-f]{3}:/i.test(bare) || /^(2001:(0{1,4}|0?db8):|2001::|2002:)/i.test(bare);
  return false;
}

/**
 * Checks the text of a URL, without resolving its host: that happens at every call, because names change.
 *
 * The WHATWG parser first turns decimal, hexadecimal, octal and full-width addresses into dotted ones.
 *
 * @param allowLoopback the local stage: http and any port on loopback are fine then, and nothing else changes.
 * @returns undefined when the URL may be called.
 */
export function findTargetFault(text: string, allowLoopback: boolean): TargetFault | undefined {
  if (text.length > urlCharactersMax) return { message: `a URL has at most ${urlCharactersMax} characters` };
  if (/[\p{Cc} ]/u.test(text)) return { message: 'a URL has no spaces or control characters' };
  let url: URL;
  try {
    url = new URL(text);
  } catch {
    return {
      message: `is not a URL: ${JSON.stringify(text.slice(0, 80))}`,
      fix: 'write it whole, such as https://example.com/hook',
    };
  }
  if (url.username !== '' || url.password !== '') {
    return {
      message: 'a URL may not hold a user name or password',
      fix: 'check the signature headers in the receiver instead',
    };
  }
  if (allowLoopback && isLoopback(url.hostname)) {
    return url.protocol === 'http:' || url.protocol === 'https:'
      ? undefined
      : { message: `the scheme "${url.protocol}" is not supported`, fix: 'use https' };
  }
  if (url.protocol !== 'https:')
    return {
      message: `the scheme must be https, got "${url.protocol.replace(':', '')}"`,
      fix: 'use an https:// URL',
    };
  if (!portsAllowed.has(url.port)) return { message: `the port must be 443 or 8443, got ${url.port}` };
  if (
    url.hostname === '' ||
    isLoopback(url.hostname) ||
    localNames.test(url.hostname) ||
    isPrivateLiteral(url.hostname)
  ) {
    return {
      message: `${url.hostname} is not a public address`,
      fix: 'use a host that can be reached from the internet',
    };
  }
  if (!url.hostname.startsWith('[') && !/^[^.]+(\.[^.]+)+\.?$/.test(url.hostname)) {
    return {
      message: `${url.hostname} is not a full host name`,
      fix: 'write it with its domain, such as hooks.example.com',
    };
  }
  return undefined;
}
