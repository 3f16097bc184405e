// Signatures: the `standardwebhooks` package verifies what we sign, and refuses what was changed.
import { createHmac } from 'node:crypto';
import * as fc from 'fast-check';
import { Webhook } from 'standardwebhooks';
import { describe, expect, it } from 'vitest';
import { systemRandom } from '../../../functions/core/clock.ts';
import {
  newSigningSecret,
  signatureHeaders,
  standardSignature,
} from '../../../functions/core/resources/webhooks/signature.ts';

const nowSeconds = () => Math.floor(Date.now() / 1000);

describe('standard signatures', () => {
  it('are accepted by the reference verifier for any body and id', () => {
    fc.assert(
      fc.property(fc.json(), fc.stringMatching(/^dlv_[a-z0-9]{20}$/), (body, id) => {
        const secret = newSigningSecret(systemRandom);
        const headers = signatureHeaders([secret], id, nowSeconds(), body);
        expect(new Webhook(secret).verify(body, headers)).toEqual(JSON.parse(body));
      }),
      { numRuns: 100 },
    );
  });

  it('equal those of the reference signer, second by second', () => {
    fc.assert(
      fc.property(fc.string(), fc.integer({ min: 0, max: 4_000_000_000 }), (body, seconds) => {
        const secret = newSigningSecret(systemRandom);
        expect(standardSignature(secret, 'dlv_x', seconds, body)).toBe(
          new Webhook(secret).sign('dlv_x', new Date(seconds * 1000), body),
        );
      }),
      { numRuns: 100 },
    );
  });

  it('are refused when body, id, time or secret differ', () => {
    const secret = newSigningSecret(systemRandom);
    const seconds = nowSeconds();
    const headers = signatureHeaders([secret], 'dlv_1', seconds, '{"a":1}');
    const reader = new Webhook(secret);
    expect(() => reader.verify('{"a":2}', headers)).toThrow();
    expect(() => reader.verify('{"a":1}', { ...headers, 'webhook-id': 'dlv_2' })).toThrow();
    expect(() =>
      reader.verify('{"a":1}', { ...headers, 'webhook-timestamp': String(seconds - 1) }),
    ).toThrow();
    expect(() => new Webhook(newSigningSecret(systemRandom)).verify('{"a":1}', headers)).toThrow();
    expect(reader.verify('{"a":1}', headers)).toEqual({ a: 1 });
  });

  it('by two secrets are accepted by readers of either, as during a rotation', () => {
    const [fresh, old] = [newSigningSecret(systemRandom), newSigningSecret(systemRandom)];
    const headers = signatureHeaders([fresh, old], 'dlv_1', nowSeconds(), '{}');
    for (const secret of [fresh, old]) expect(new Webhook(secret).verify('{}', headers)).toEqual({});
  });

  it("of a user's own secret without a prefix use its bytes as they are", () => {
    const secret = 'my own secret, 24 bytes or more';
    const headers = signatureHeaders([secret], 'dlv_1', nowSeconds(), '{}');
    expect(new Webhook(secret, { format: 'raw' }).verify('{}', headers)).toEqual({});
  });
});

describe('the header of older clients', () => {
  it('signs the time and the body with the secret as it is shown', () => {
    const secret = newSigningSecret(systemRandom);
    const headers = signatureHeaders([secret], 'dlv_1', 1_700_000_000, '{"a":1}');
    const expected = createHmac('sha256', secret).update('1700000000.{"a":1}').digest('hex');
    expect(headers['X-Mixpeek-Signature']).toBe(`t=1700000000,v1=${expected}`);
    expect(headers['webhook-timestamp']).toBe('1700000000');
  });

  it('holds one part for each secret', () => {
    expect(signatureHeaders(['a'.repeat(24), 'b'.repeat(24)], 'dlv_1', 1, '')['X-Mixpeek-Signature']).toMatch(
      /^t=1,v1=[0-9a-f]{64},v1=[0-9a-f]{64}$/,
    );
  });
});

describe('an unsigned delivery', () => {
  it('has an id and a time and no signature', () => {
    expect(signatureHeaders([], 'dlv_1', 5, '{}')).toEqual({
      'webhook-id': 'dlv_1',
      'webhook-timestamp': '5',
    });
  });
});

describe('a made secret', () => {
  it('has 32 random bytes and differs each time', () => {
    const secrets = Array.from({ length: 50 }, () => newSigningSecret(systemRandom));
    expect(new Set(secrets).size).toBe(50);
    for (const secret of secrets)
      expect(Buffer.from(secret.replace('whsec_', ''), 'base64')).toHaveLength(32);
  });
});
