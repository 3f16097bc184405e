// Every Lambda has exactly the environment values that it declares, in every stage.
import { describe, expect, it } from 'vitest';
import type { LambdaName } from '../../functions/core/env.ts';
import { lambdaEnvironment, readEnvironment } from '../../functions/core/env.ts';
import { functionOf, stage } from './synthesised.ts';

const lambdas = Object.keys(lambdaEnvironment) as LambdaName[];

describe.each(['local', 'dev', 'prod'])('in the stage %s', (name) => {
  const synthesised = stage(name);

  it.each(lambdas)('%s has exactly the values of core/env.ts, none of them empty', (lambda) => {
    const { Variables } = functionOf(synthesised, lambda).Properties.Environment;
    expect(Object.keys(Variables).sort()).toEqual([...lambdaEnvironment[lambda]].sort());
    const rendered = Object.fromEntries(
      Object.entries(Variables).map(([key, value]) => [key, JSON.stringify(value)]),
    );
    expect(() => readEnvironment(lambda, rendered)).not.toThrow();
    for (const [key, value] of Object.entries(Variables)) expect(value, key).not.toBe('');
  });

  it('lets webhooks and blob URLs reach loopback addresses in the local stage only', () => {
    for (const lambda of lambdas) {
      const { Variables } = functionOf(synthesised, lambda).Properties.Environment;
      if (!(lambdaEnvironment[lambda] as readonly string[]).includes('ALLOW_LOOPBACK')) continue;
      expect(Variables.ALLOW_LOOPBACK, lambda).toBe(name === 'local' ? 'true' : 'false');
    }
  });

  it('says rate limits and the labelling model as JSON', () => {
    const { Variables } = functionOf(synthesised, 'cluster').Properties.Environment;
    expect(JSON.parse(Variables.RATE_LIMITS)).toBeTypeOf('object');
    expect(JSON.parse(Variables.LABEL_MODEL)).toEqual({ provider: 'none' });
    expect(Variables.STAGE).toBe(name);
  });
});
