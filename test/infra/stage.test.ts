// Settings of stages are checked before anything is synthesised.
import { describe, expect, it } from 'vitest';
import { checkedSettings, stageNames, stageSettings } from '../../infra/stage.ts';

describe('stageSettings', () => {
  it('knows local, dev and prod', () => {
    expect(stageNames).toEqual(['local', 'dev', 'prod']);
    for (const name of stageNames) expect(stageSettings(name).stage).toBe(name);
  });

  it('names the stages there are when asked for another or for none', () => {
    expect(() => stageSettings('staging')).toThrow(/no stage "staging".*local\|dev\|prod/);
    expect(() => stageSettings('')).toThrow(/local\|dev\|prod/);
    expect(() => stageSettings('toString')).toThrow(/no stage|wrong/);
  });

  it('takes an e-mail address for alarms and a labelling model from the command line', () => {
    const labels = {
      provider: 'openai',
      base_url: 'https://api.example.com/v1',
      model_id: 'm',
      secret_name: 'granary/labels',
    };
    const settings = stageSettings('dev', { alarmEmail: 'ops@example.com', labels });
    expect(settings.alarmEmail).toBe('ops@example.com');
    expect(settings.labels).toMatchObject(labels);
    expect(stageSettings('dev').labels).toEqual({ provider: 'none' });
    expect(() => stageSettings('dev', { labels: { provider: 'bedrock' } })).toThrow(/model_id/);
    expect(() => stageSettings('dev', { labels: {} })).toThrow(/"none", "openai" or "bedrock"/);
    expect(() => stageSettings('dev', { alarmEmail: 'nobody' })).toThrow(/alarmEmail/);
  });

  it('refuses loopback addresses and shared plugin environments outside the local stage', () => {
    const dev = stageSettings('dev');
    expect(() => checkedSettings({ ...dev, allowLoopback: true })).toThrow(/allowLoopback/);
    expect(() => checkedSettings({ ...dev, tenancy: false })).toThrow(/tenancy/);
  });

  it('refuses what AWS would refuse', () => {
    const dev = stageSettings('dev');
    const api = dev.sizing.api;
    expect(() =>
      checkedSettings({ ...dev, sizing: { ...dev.sizing, api: { ...api, memoryMb: 64 } } }),
    ).toThrow(/memoryMb/);
    expect(() =>
      checkedSettings({ ...dev, sizing: { ...dev.sizing, api: { ...api, timeoutSeconds: 901 } } }),
    ).toThrow(/timeoutSeconds/);
    expect(() => checkedSettings({ ...dev, queueConcurrency: 1 })).toThrow(/queueConcurrency/);
    expect(() => checkedSettings({ ...dev, unknown: 1 })).toThrow(/unknown/);
  });

  it('lets what calls outlive what is called', () => {
    for (const name of stageNames) {
      const { sizing } = stageSettings(name);
      expect(sizing['plugin-runner'].timeoutSeconds).toBeLessThan(sizing.chunk.timeoutSeconds);
      expect(sizing['plugin-validator'].timeoutSeconds).toBeLessThan(sizing.api.timeoutSeconds);
      expect(sizing.api.timeoutSeconds).toBeLessThanOrEqual(29);
      expect(sizing.query.timeoutSeconds).toBeLessThanOrEqual(29);
      expect(sizing.sweep.timeoutSeconds).toBeLessThan(60);
    }
  });
});
