// What a stage may say about names of clusters.
import { describe, expect, it } from 'vitest';
import { bedrockModel, LabelSettings, readLabelSettings } from '../../../functions/core/labels/settings.ts';

const caps = { input_tokens_max: 20_000, output_tokens_max: 4_000, run_tokens_max: 200_000 };
const bedrock = { provider: 'bedrock', model_id: 'amazon.nova-lite-v1:0' };

describe('the settings of labels', () => {
  it.each<[object, object]>([
    [{ provider: 'none' }, {}],
    [
      {
        provider: 'openai',
        base_url: 'https://api.example.com/v1',
        model_id: 'm',
        secret_name: 'granary/key',
      },
      caps,
    ],
    [bedrock, { ...caps, answer: 'tool' }],
    [
      { ...bedrock, model_id: 'anthropic.claude-3-haiku-20240307-v1:0:48k' },
      { ...caps, answer: 'tool' },
    ],
    [
      { ...bedrock, model_id: 'global.amazon.nova-2-lite-v1:0', region: 'eu-west-1' },
      { ...caps, answer: 'tool' },
    ],
    [
      {
        ...bedrock,
        model_id: 'us-gov.anthropic.claude-x-v1:0',
        destination_regions: ['us-gov-west-1'],
        answer: 'json_schema',
        output_tokens_max: 500,
      },
      { ...caps, output_tokens_max: 500 },
    ],
  ])('take %j, with caps on tokens', (given, defaults) => {
    expect(readLabelSettings(JSON.stringify(given))).toEqual({ ...defaults, ...given });
  });

  it.each<[unknown, RegExp]>([
    [{}, /provider must be "none", "openai" or "bedrock"/],
    [{ provider: 'gemini' }, /provider must be/],
    ['openai', /./],
    [{ provider: 'none', model_id: 'm' }, /model_id/],
    [{ provider: 'openai', base_url: 'api.example.com', model_id: 'm' }, /base_url must be a whole URL/],
    [{ provider: 'openai', base_url: 'https://a.example.com', model_id: 'm', api_key: 'sk' }, /api_key/],
    [{ ...bedrock, model_id: 'arn:aws:bedrock:eu-west-1:1:inference-profile/x' }, /no ARN/],
    [{ ...bedrock, model_id: 'nova' }, /such as amazon\.nova-lite/],
    [{ ...bedrock, model_id: '*' }, /such as amazon\.nova-lite/],
    [{ ...bedrock, model_id: 'amazon.nova-*' }, /such as amazon\.nova-lite/],
    [{ ...bedrock, model_id: 'eu.amazon.nova-lite-v1:0' }, /needs them/],
    [{ ...bedrock, destination_regions: ['eu-west-1'] }, /only an inference profile/],
    [{ ...bedrock, model_id: 'global.amazon.x', destination_regions: ['eu-west-1'] }, /global/],
    [{ ...bedrock, region: 'Ireland' }, /written like eu-west-1/],
    [{ ...bedrock, input_tokens_max: 10 }, /input_tokens_max/],
    [{ ...bedrock, output_tokens_max: 1_000_000 }, /output_tokens_max/],
  ])('refuse %j with a sentence', (given, message) => {
    expect(LabelSettings.safeParse(given).success).toBe(false);
    expect(() => readLabelSettings(JSON.stringify(given))).toThrow(message);
  });

  it('tell a model from the inference profile before it', () => {
    expect(bedrockModel('amazon.nova-lite-v1:0')).toEqual({
      model: 'amazon.nova-lite-v1:0',
      profile: undefined,
      global: false,
    });
    expect(bedrockModel('apac.amazon.nova-lite-v1:0')).toEqual({
      model: 'amazon.nova-lite-v1:0',
      profile: 'apac.amazon.nova-lite-v1:0',
      global: false,
    });
    expect(bedrockModel('global.a.b').global).toBe(true);
  });
});
