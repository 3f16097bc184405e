// cdk-nag passes with what acknowledgements.ts explains, and would fail with anything else.
import { Stack } from 'aws-cdk-lib';
import * as s3 from 'aws-cdk-lib/aws-s3';
import { describe, expect, it } from 'vitest';
import { acknowledgements } from '../../infra/acknowledgements.ts';
import { addGranary } from '../../infra/granary-app.ts';
import { stageSettings } from '../../infra/stage.ts';
import { emptyApp } from './synthesised.ts';

describe('cdk-nag', () => {
  it.each(['dev', 'prod'])('finds nothing in %s that is not acknowledged', (name) => {
    const app = emptyApp();
    addGranary(app, stageSettings(name, { alarmEmail: 'ops@example.com' }));
    expect(() => app.synth()).not.toThrow();
  });

  it('stops the synth at a bucket that nobody has explained', () => {
    const app = emptyApp();
    const { data } = addGranary(app, stageSettings('prod'));
    new s3.Bucket(data, 'Planted');
    expect(() => app.synth()).toThrow(/[Vv]alidation failed/);
  });

  it('has a reason for each acknowledgement, and no acknowledgement on a whole app', () => {
    const app = emptyApp();
    const stacks = addGranary(app, stageSettings('prod'));
    for (const { id, reason, on } of acknowledgements(stacks)) {
      expect(reason.length, id).toBeGreaterThan(20);
      expect(on.length, id).toBeGreaterThan(0);
      for (const construct of on) expect(construct === app, id).toBe(false);
    }
    expect(Stack.of(stacks.data)).toBe(stacks.data);
  });
});
