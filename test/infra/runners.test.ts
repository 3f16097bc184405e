// The functions that run users' code, in a stage that has all of them. The emulator knows neither networks nor policies,
// so what is asserted here is the only proof before AWS.
import { describe, expect, it } from 'vitest';
import { checkedSettings, stageSettings } from '../../infra/stage.ts';
import type { Resource } from './synthesised.ts';
import { functionOf, roleOf, stage, statementsOf, synthesise } from './synthesised.ts';

const full = synthesise(
  checkedSettings({
    ...stageSettings('prod'),
    runnerEgress: true,
    runnerLarge: true,
    containerImages: true,
  }),
);
const runner = (id: string) => full.one('AWS::Lambda::Function', `${id}Function`);
const [standard, egress, large] = ['PluginRunner', 'PluginRunnerEgress', 'PluginRunnerLarge'].map(runner) as [
  Resource,
  Resource,
  Resource,
];
const imageRole = full.one('AWS::IAM::Role', 'ImageRunnerRole');
const imageFunctions = ':function:granary-prod-image-*';
const text = (value: unknown) => JSON.stringify(value);

/** The environment value of a Lambda, with references written as their names. */
function settingOf(folder: 'api' | 'chunk', name: string): Record<string, unknown> {
  const value = functionOf(full, folder).Properties.Environment.Variables[name];
  const parts = typeof value === 'string' ? [value] : (value['Fn::Join'][1] as unknown[]);
  const rendered = parts.map((part) =>
    typeof part === 'string' ? part : text(part).replaceAll(/["\\]/g, ''),
  );
  return JSON.parse(rendered.join(''));
}

describe('the functions that run plugins', () => {
  it('are one in a new account; the large one comes with prod, the others when the operator asks for them', () => {
    const count = (name: string) =>
      stage(name)
        .ofType('AWS::Lambda::Function')
        .filter(({ id }) => id.startsWith('PluginRunner')).length;
    expect([count('local'), count('dev'), count('prod')]).toEqual([1, 1, 2]);
    for (const name of ['local', 'dev', 'prod']) {
      const { runnerEgress, containerImages } = stageSettings(name);
      expect([runnerEgress, containerImages], name).toEqual([false, false]);
    }
  });

  it('have the same code, packages and tenants, and only the one with a way out is told of it', () => {
    for (const one of [egress, large]) {
      for (const name of [
        'Code',
        'Handler',
        'Runtime',
        'Architectures',
        'Layers',
        'TenancyConfig',
        'Timeout',
      ])
        expect(one.Properties[name], `${one.id} ${name}`).toEqual(standard.Properties[name]);
    }
    for (const one of [standard, egress, large]) {
      expect(one.Properties.TenancyConfig).toEqual({ TenantIsolationMode: 'PER_TENANT' });
      expect(one.Properties.Environment?.Variables).toEqual(
        one === egress ? { PLUGIN_EGRESS: 'on' } : undefined,
      );
    }
    expect(large.Properties.MemorySize).toBeGreaterThan(standard.Properties.MemorySize);
  });

  it('may write their own logs, each by a role of its own, and what networks need is denied to their code', () => {
    for (const one of [standard, egress, large]) {
      const statements = statementsOf(full, roleOf(full, one));
      const denied = statements.filter(({ Effect }) => Effect === 'Deny');
      const deniedActions = new Set(denied.flatMap(({ Action }) => Action));
      const left = statements
        .filter(({ Effect }) => Effect === 'Allow')
        .flatMap(({ Action }) => Action)
        .filter((action) => !deniedActions.has(action));
      expect(left.sort(), one.id).toEqual(['logs:CreateLogStream', 'logs:PutLogEvents']);
      for (const { Condition } of denied)
        expect(Condition).toEqual({
          ArnLike: { 'lambda:SourceFunctionArn': { 'Fn::GetAtt': [one.id, 'Arn'] } },
        });
      expect(denied.length).toBe(one === egress ? 0 : 1);
    }
    expect(new Set([standard, egress, large].map((one) => roleOf(full, one).id)).size).toBe(3);
  });

  it('live in the isolated subnets, but for the one with a way out, which is in no network of ours', () => {
    for (const one of [standard, large]) expect(one.Properties.VpcConfig.SubnetIds.length).toBe(2);
    expect(egress.Properties.VpcConfig).toBeUndefined();
  });

  it('are named to whoever runs plugins', () => {
    expect(settingOf('chunk', 'RUNNER_VARIANTS')).toEqual({
      egress: `{Ref:${egress.id}}`,
      large: `{Ref:${large.id}}`,
    });
    const invoked = text(
      statementsOf(full, roleOf(full, functionOf(full, 'chunk'))).filter(({ Action }) =>
        Action.includes('lambda:InvokeFunction'),
      ),
    );
    for (const part of [standard.id, egress.id, large.id, imageFunctions]) expect(invoked).toContain(part);
    const plain = functionOf(stage('dev'), 'chunk').Properties.Environment.Variables;
    expect([plain.RUNNER_VARIANTS, plain.IMAGE_FUNCTIONS]).toEqual(['{}', '{}']);
  });
});

describe('the isolated network', () => {
  it('lets S3 answer for our buckets of objects and archives only, whoever signed the URL', () => {
    const endpoint = full.one('AWS::EC2::VPCEndpoint', 'RunnerNetwork');
    const { Statement } = endpoint.Properties.PolicyDocument;
    expect(Statement).toHaveLength(1);
    expect(Statement[0]).toMatchObject({ Effect: 'Allow', Action: ['s3:GetObject', 's3:PutObject'] });
    const resources = text(Statement[0].Resource);
    expect(Statement[0].Resource).toHaveLength(2);
    expect(resources).toContain('Blobs');
    expect(resources).toContain('Archives');
  });

  it('resolves names of S3 and no others, so that nothing leaves in a question for a name', () => {
    const rules = full.one('AWS::Route53Resolver::FirewallRuleGroup', 'RunnerNetwork').Properties
      .FirewallRules;
    const domains = (rule: { FirewallDomainListId: { 'Fn::GetAtt': [string, string] } }) =>
      full
        .ofType('AWS::Route53Resolver::FirewallDomainList')
        .find(({ id }) => id === rule.FirewallDomainListId['Fn::GetAtt'][0])!.Properties.Domains;
    expect(
      rules.map(({ Priority, Action }: { Priority: number; Action: string }) => [Priority, Action]),
    ).toEqual([
      [1, 'ALLOW'],
      [2, 'BLOCK'],
    ]);
    for (const name of domains(rules[0])) expect(text(name)).toMatch(/s3\./);
    expect(domains(rules[1])).toEqual(['*']);
    const [association] = full.ofType('AWS::Route53Resolver::FirewallRuleGroupAssociation');
    expect(association!.Properties.VpcId).toEqual({ Ref: full.one('AWS::EC2::VPC', 'RunnerNetwork').id });
  });
});

describe('plugins in container images', () => {
  it('run under a role that may write one log group, and whose network rights their code is denied', () => {
    const statements = statementsOf(full, imageRole);
    const denied = statements.filter(({ Effect }) => Effect === 'Deny');
    const left = statements
      .flatMap(({ Action }) => Action)
      .filter((action) => !denied.some(({ Action }) => Action.includes(action)));
    expect(left.sort()).toEqual(['logs:CreateLogStream', 'logs:PutLogEvents']);
    expect(text(denied[0]!.Condition)).toContain(imageFunctions);
    expect(denied).toHaveLength(1);
  });

  it('are made by the API alone: functions of one prefix, this one role, our own repositories', () => {
    const makers = full
      .ofType('AWS::IAM::Role')
      .filter((role) =>
        statementsOf(full, role).some(({ Action }) =>
          Action.some((action) => /^lambda:(Create|Update)|^iam:PassRole|^ecr:/.test(action)),
        ),
      );
    expect(makers.map(({ id }) => id)).toEqual([roleOf(full, functionOf(full, 'api')).id]);
    for (const { Action, Resource, Condition } of statementsOf(full, makers[0]!)) {
      for (const action of Action) {
        if (/^lambda:(Create|Update|Delete|Get)/.test(action))
          expect(text(Resource)).toContain(imageFunctions);
        if (action.startsWith('ecr:')) expect(text(Resource)).toContain(':repository/granary-prod/*');
        if (action === 'iam:PassRole') {
          expect(Resource).toHaveLength(1);
          expect(text(Resource)).toContain('ImageRunnerRole');
          expect(Condition).toEqual({ StringEquals: { 'iam:PassedToService': 'lambda.amazonaws.com' } });
        }
      }
    }
  });

  it('go with their namespace, whose removal may delete their functions', () => {
    const removers = full
      .ofType('AWS::IAM::Role')
      .filter((role) =>
        statementsOf(full, role).some(({ Action }) => Action.includes('lambda:DeleteFunction')),
      );
    expect(removers.map(({ id }) => id).sort()).toEqual(
      [functionOf(full, 'api'), functionOf(full, 'namespace')].map((one) => roleOf(full, one).id).sort(),
    );
  });

  it('are told the names, the role, the network and the registry', () => {
    const settings = settingOf('api', 'IMAGE_FUNCTIONS');
    expect(settings).toMatchObject({
      name_prefix: 'granary-prod-image-',
      timeout_seconds: full.settings.sizing['plugin-runner'].timeoutSeconds,
      log_level: 'INFO',
    });
    expect(String(settings.role)).toContain('ImageRunnerRole');
    expect(String(settings.repositories)).toMatch(/\.dkr\.ecr\..*\/granary-prod\/$/);
    expect(settings.subnets).toHaveLength(2);
    expect(settings.security_groups).toHaveLength(1);
    expect(String(settings.name_prefix).length).toBeLessThanOrEqual(32);
  });
});
