// cdk-nag passes with what acknowledgements.ts explains, and would fail with anything else.
import * as s3 from 'aws-cdk-lib/aws-s3';
import { describe, expect, it } from 'vitest';
import { acknowledgements } from '../../infra/acknowledgements.ts';
import { addGranary } from '../../infra/granary-app.ts';
import { checkedSettings, stageSettings } from '../../infra/stage.ts';
import { emptyApp } from './synthesised.ts';

describe('cdk-nag', () => {
  it.each(['dev', 'prod'])('finds nothing in %s that is not acknowledged', (name) => {
    const app = emptyApp();
    addGranary(app, stageSettings(name));
    expect(() => app.synth()).not.toThrow();
  });

  it('finds nothing when alarms are sent by e-mail and plugins may reach the Internet', () => {
    const app = emptyApp();
    const settings = stageSettings('prod', { alarmEmail: 'ops@example.com' });
    addGranary(app, checkedSettings({ ...settings, runnerNetwork: 'open' }));
    expect(() => app.synth()).not.toThrow();
  });

  it.each(['isolated', 'open'])(
    'finds nothing when plugins may bring images and call others (%s)',
    (runnerNetwork) => {
      const app = emptyApp();
      const settings = stageSettings('prod');
      addGranary(
        app,
        checkedSettings({ ...settings, runnerNetwork, runnerEgress: true, containerImages: true }),
      );
      expect(() => app.synth()).not.toThrow();
    },
  );

  it('stops the synth at a bucket that nobody has explained', () => {
    const app = emptyApp();
    const { data } = addGranary(app, stageSettings('prod'));
    new s3.Bucket(data, 'Planted');
    expect(() => app.synth()).toThrow(/Data\/Planted.*AwsSolutions-S1/s);
  });

  it('has a reason for each acknowledgement, and no acknowledgement on a whole app', () => {
    const app = emptyApp();
    const settings = stageSettings('prod');
    for (const { id, reason, on } of acknowledgements(addGranary(app, settings), settings)) {
      expect(reason.length, id).toBeGreaterThan(20);
      expect(on.length, id).toBeGreaterThan(0);
      for (const construct of on) expect(construct === app, id).toBe(false);
    }
  });
});
