// What the role of the cluster steps may do to have clusters named, by what the stage says about labels.
import { App, Stack } from 'aws-cdk-lib';
import { Template } from 'aws-cdk-lib/assertions';
import * as iam from 'aws-cdk-lib/aws-iam';
import { describe, expect, it } from 'vitest';
import { LabelSettings } from '../../functions/core/labels/settings.ts';
import { allowLabels } from '../../infra/constructs/rights.ts';
import { stageSettings } from '../../infra/stage.ts';
import { functionIds, functionOf, roleOf, statementsOf, synthesise } from './synthesised.ts';

/** The statements that these settings give to a role, as a stack in one account and region renders them. */
function statementsFor(labels: object): object[] {
  const stack = new Stack(new App({ analyticsReporting: false }), 'S', {
    env: { account: '123456789012', region: 'eu-central-1' },
  });
  const role = new iam.Role(stack, 'Role', { assumedBy: new iam.ServicePrincipal('lambda.amazonaws.com') });
  allowLabels(role, LabelSettings.parse(labels));
  const policies = Object.values(Template.fromStack(stack).findResources('AWS::IAM::Policy'));
  const rendered = JSON.stringify(policies.flatMap((policy) => policy.Properties.PolicyDocument.Statement));
  // `{"Fn::Join": ["", ["arn:", {"Ref": "AWS::Partition"}, ":bedrock:..."]]}`
  return JSON.parse(rendered, (_, value) => {
    const joined = value?.['Fn::Join'];
    return joined
      ? joined[1].map((part: unknown) => (typeof part === 'string' ? part : 'aws')).join('')
      : value;
  });
}

const invoke = { Effect: 'Allow', Action: 'bedrock:InvokeModel' };
const profileArn = (region: string, id: string) =>
  `arn:aws:bedrock:${region}:123456789012:inference-profile/${id}`;
const modelArn = (region: string) => `arn:aws:bedrock:${region}::foundation-model/amazon.nova-lite-v1:0`;
const bedrock = { provider: 'bedrock', model_id: 'amazon.nova-lite-v1:0' };

describe('the right to have clusters named', () => {
  it('is none where their words name them, or a server without a key', () => {
    expect(statementsFor({ provider: 'none' })).toEqual([]);
    expect(
      statementsFor({ provider: 'openai', base_url: 'https://m.example.com/v1', model_id: 'm' }),
    ).toEqual([]);
  });

  it('is to read the one secret of a server with a key', () => {
    const [statement, ...more] = statementsFor({
      provider: 'openai',
      base_url: 'https://m.example.com/v1',
      model_id: 'm',
      secret_name: 'granary/labels',
    });
    expect(statement).toEqual({
      Effect: 'Allow',
      Action: 'secretsmanager:GetSecretValue',
      Resource: 'arn:aws:secretsmanager:eu-central-1:123456789012:secret:granary/labels-??????',
    });
    expect(more).toEqual([]);
  });

  it('is to invoke the one model, in the region of the stack or of the settings', () => {
    expect(statementsFor(bedrock)).toEqual([{ ...invoke, Resource: modelArn('eu-central-1') }]);
    expect(statementsFor({ ...bedrock, region: 'eu-west-1' })).toEqual([
      { ...invoke, Resource: modelArn('eu-west-1') },
    ]);
  });

  it('is to invoke an inference profile, and its model in each destination region by way of that profile only', () => {
    const profile = profileArn('eu-west-1', 'eu.amazon.nova-lite-v1:0');
    expect(
      statementsFor({
        ...bedrock,
        model_id: 'eu.amazon.nova-lite-v1:0',
        region: 'eu-west-1',
        destination_regions: ['eu-west-1', 'eu-west-3', 'eu-north-1', 'eu-west-3'],
      }),
    ).toEqual([
      { ...invoke, Resource: profile },
      {
        ...invoke,
        Resource: [modelArn('eu-west-1'), modelArn('eu-west-3'), modelArn('eu-north-1')],
        Condition: { StringEquals: { 'bedrock:InferenceProfileArn': profile } },
      },
    ]);
  });

  it('is to invoke a global profile, and its model here and without a region', () => {
    const profile = profileArn('eu-central-1', 'global.amazon.nova-lite-v1:0');
    expect(statementsFor({ ...bedrock, model_id: 'global.amazon.nova-lite-v1:0' })).toEqual([
      { ...invoke, Resource: profile },
      {
        ...invoke,
        Resource: [modelArn('eu-central-1'), modelArn('')],
        Condition: { StringEquals: { 'bedrock:InferenceProfileArn': profile } },
      },
    ]);
  });

  it('is given to the cluster steps and to nobody else, whose environment says which model', () => {
    const labels = { ...bedrock, model_id: 'eu.amazon.nova-lite-v1:0', destination_regions: ['eu-west-3'] };
    const synthesised = synthesise(stageSettings('dev', { labels }));
    const invokers = (Object.keys(functionIds) as (keyof typeof functionIds)[]).filter((folder) =>
      statementsOf(synthesised, roleOf(synthesised, functionOf(synthesised, folder))).some(({ Action }) =>
        Action.includes('bedrock:InvokeModel'),
      ),
    );
    expect(invokers).toEqual(['cluster']);
    const { Variables } = functionOf(synthesised, 'cluster').Properties.Environment;
    expect(JSON.parse(Variables.LABEL_MODEL)).toMatchObject({
      ...labels,
      answer: 'tool',
      output_tokens_max: 4_000,
    });
  });
});
