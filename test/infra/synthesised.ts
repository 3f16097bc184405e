// The stacks of a stage, synthesised without bundling and without network, for tests that look at templates.
import { readFileSync } from 'node:fs';
import { App } from 'aws-cdk-lib';
import { Template } from 'aws-cdk-lib/assertions';
import { addGranary } from '../../infra/granary-app.ts';
import type { GranaryStacks } from '../../infra/stacks/granary-stacks.ts';
import type { StageSettings } from '../../infra/stage.ts';
import { stageSettings } from '../../infra/stage.ts';

export interface Resource {
  readonly stack: string;
  readonly id: string;
  readonly Type: string;
  // biome-ignore lint/suspicious/noExplicitAny: a template is whatever CloudFormation takes.
  readonly Properties: Record<string, any>;
  readonly DeletionPolicy?: string;
}

export interface Synthesised {
  readonly settings: StageSettings;
  readonly stacks: GranaryStacks;
  readonly resources: readonly Resource[];
  /** Stack name without stage, such as `data`, to its template. */
  readonly templates: Readonly<Record<string, Record<string, unknown>>>;
  ofType(type: string): readonly Resource[];
  /** The one resource of a type in a stack whose logical id begins so. */
  one(type: string, idPrefix: string): Resource;
}

/** An app with the flags that the CLI would take from cdk.json. */
export function emptyApp(): App {
  const { context } = JSON.parse(readFileSync(new URL('../../cdk.json', import.meta.url), 'utf8')) as {
    context: Record<string, unknown>;
  };
  return new App({ analyticsReporting: false, context: { ...context, 'aws:cdk:bundling-stacks': [] } });
}

const known = new Map<string, Synthesised>();

/** One of the stages of `stage.ts`; synthesised once for each test file. */
export function stage(name: string): Synthesised {
  const found = known.get(name) ?? synthesise(stageSettings(name));
  known.set(name, found);
  return found;
}

export function synthesise(settings: StageSettings): Synthesised {
  const stacks = addGranary(emptyApp(), settings);
  const templates: Record<string, Record<string, unknown>> = {};
  const resources: Resource[] = [];
  for (const stack of Object.values(stacks)) {
    const name = stack.stackName.slice(`granary-${settings.stage}-`.length);
    const template = Template.fromStack(stack).toJSON();
    templates[name] = template;
    for (const [id, resource] of Object.entries((template.Resources ?? {}) as Record<string, Resource>)) {
      resources.push({ ...resource, Properties: resource.Properties ?? {}, stack: name, id });
    }
  }
  const ofType = (type: string) => resources.filter((resource) => resource.Type === type);
  return {
    settings,
    stacks,
    templates,
    resources,
    ofType,
    one(type, idPrefix) {
      const found = ofType(type).filter(({ id }) => id.startsWith(idPrefix));
      if (found.length !== 1) {
        throw new Error(
          `${found.length} resources ${type} begin with ${idPrefix}: ${ofType(type)
            .map(({ id }) => id)
            .join(', ')}`,
        );
      }
      return found[0]!;
    },
  };
}

/** What a role may do: statements of all policies that name it, in the order of the template. */
export interface Statement {
  readonly Effect: string;
  readonly Action: readonly string[];
  readonly Resource: readonly unknown[];
  readonly Condition?: unknown;
}

// biome-ignore lint/suspicious/noExplicitAny: as above.
const list = (value: any): any[] => (Array.isArray(value) ? value : value === undefined ? [] : [value]);

export function statementsOf(synthesised: Synthesised, role: Resource): readonly Statement[] {
  const documents = [
    ...list(role.Properties.Policies).map((policy) => policy.PolicyDocument),
    ...synthesised
      .ofType('AWS::IAM::Policy')
      .filter(
        (policy) =>
          policy.stack === role.stack && list(policy.Properties.Roles).some((ref) => ref.Ref === role.id),
      )
      .map((policy) => policy.Properties.PolicyDocument),
  ];
  return documents.flatMap((document) =>
    list(document.Statement).map((statement) => ({
      ...statement,
      Action: list(statement.Action),
      Resource: list(statement.Resource),
    })),
  );
}

/** The role of a function, found by its reference. */
export function roleOf(synthesised: Synthesised, one: Resource): Resource {
  const id = one.Properties.Role?.['Fn::GetAtt']?.[0] ?? one.Properties.RoleArn?.['Fn::GetAtt']?.[0];
  const role = synthesised
    .ofType('AWS::IAM::Role')
    .find((candidate) => candidate.stack === one.stack && candidate.id === id);
  if (!role) throw new Error(`${one.id} has no role in its stack`);
  return role;
}

/** Logical id prefix of the function of each folder under `functions/`. */
export const functionIds = {
  api: 'Api',
  query: 'Query',
  scan: 'Scan0Function',
  authorizer: 'Authorizer',
  relay: 'Relay',
  starter: 'Starter',
  batch: 'BatchFunction',
  chunk: 'Chunk',
  taxonomy: 'TaxonomyFunction',
  alert: 'Alert',
  cluster: 'ClusterFunction',
  namespace: 'NamespaceFunction',
  compact: 'Compact',
  deliver: 'Deliver',
  sweep: 'Sweep',
  'plugin-validator': 'PluginValidator',
  'plugin-runner': 'PluginRunnerFunction',
  clusterer: 'Clusterer',
} as const;

export function functionOf(synthesised: Synthesised, folder: keyof typeof functionIds): Resource {
  return synthesised.one('AWS::Lambda::Function', functionIds[folder]);
}
