// Vector backends beside the segments: nothing of them on a stage that did not ask, and only what is needed on one that did.
import { describe, expect, it } from 'vitest';
import { addGranary } from '../../infra/granary-app.ts';
import { checkedSettings, stageNames, stageSettings } from '../../infra/stage.ts';
import { emptyApp, functionIds, functionOf, roleOf, stage, statementsOf, synthesise } from './synthesised.ts';

type Folder = keyof typeof functionIds;
const folders = Object.keys(functionIds) as Folder[];
const withBackends = (name: string) =>
  checkedSettings({ ...stageSettings(name), s3Vectors: true, lancedb: true });
const enabled = synthesise(withBackends('prod'));

function vectorStatements(folder: Folder) {
  return statementsOf(enabled, roleOf(enabled, functionOf(enabled, folder))).filter(({ Action }) =>
    Action.some((action) => action.startsWith('s3vectors:')),
  );
}

const actionsOf = (folder: Folder) =>
  vectorStatements(folder)
    .flatMap(({ Action }) => Action)
    .sort();

describe('a stage', () => {
  it.each(stageNames)('%s has no vector backend unless its settings say so', (name) => {
    const synthesised = stage(name);
    expect(synthesised.ofType('AWS::S3Vectors::VectorBucket')).toEqual([]);
    expect(synthesised.stacks.processing.lance).toBeUndefined();
    for (const folder of ['api', 'query', 'compact', 'namespace'] as const) {
      const { Variables } = functionOf(synthesised, folder).Properties.Environment;
      expect(JSON.parse(Variables.VECTOR_BACKENDS), folder).toEqual({});
    }
  });

  it.each(['dev', 'prod'])('%s passes cdk-nag with both backends', (name) => {
    const app = emptyApp();
    addGranary(app, withBackends(name));
    expect(() => app.synth()).not.toThrow();
  });
});

describe('a stage with S3 Vectors', () => {
  it('has one vector bucket, encrypted, whose name CloudFormation makes', () => {
    const [bucket, ...others] = enabled.ofType('AWS::S3Vectors::VectorBucket');
    expect(others).toEqual([]);
    expect(bucket!.Properties).toMatchObject({ EncryptionConfiguration: { SseType: 'AES256' } });
    expect(bucket!.Properties.VectorBucketName).toBeUndefined();
    expect(bucket!.stack).toBe('data');
  });

  it('tells every Lambda that runs services how to reach it', () => {
    for (const folder of ['api', 'query', 'taxonomy', 'alert', 'compact', 'namespace'] as const) {
      const value = JSON.stringify(
        functionOf(enabled, folder).Properties.Environment.Variables.VECTOR_BACKENDS,
      );
      expect(value, folder).toContain('s3_vectors');
      expect(value, folder).toContain('lancedb');
    }
  });

  it('lets searches ask, the worker of the indexes keep copies, the removal of namespaces drop them, and nobody else', () => {
    const asking = ['s3vectors:QueryVectors'];
    for (const folder of ['query', 'taxonomy', 'alert'] as const) expect(actionsOf(folder)).toEqual(asking);
    expect(actionsOf('namespace')).toEqual(['s3vectors:DeleteIndex', 's3vectors:ListIndexes']);
    expect(actionsOf('compact')).toEqual([
      's3vectors:CreateIndex',
      's3vectors:DeleteIndex',
      's3vectors:DeleteVectors',
      's3vectors:GetIndex',
      's3vectors:GetVectors',
      's3vectors:ListIndexes',
      's3vectors:ListVectors',
      's3vectors:PutVectors',
    ]);
    const able = folders.filter((folder) => vectorStatements(folder).length > 0);
    expect(able.sort()).toEqual(['alert', 'compact', 'namespace', 'query', 'taxonomy']);
  });

  it('names the one bucket in every right, and indexes below it', () => {
    for (const folder of folders) {
      for (const { Action, Resource } of vectorStatements(folder)) {
        expect(Resource.length).toBe(1);
        const text = JSON.stringify(Resource);
        expect(text).toContain('Vectors');
        expect(text.includes('/index/*'), `${folder}: ${Action.join()}`).toBe(
          !Action.includes('s3vectors:ListIndexes'),
        );
      }
    }
  });
});

describe('a stage with LanceDB', () => {
  const lance = enabled.one('AWS::Lambda::Function', 'LanceFunction');

  it('has a function that reaches its own folders of the index bucket and nothing else', () => {
    const statements = statementsOf(enabled, roleOf(enabled, lance));
    const onBuckets = statements.filter(({ Action }) => Action.some((action) => action.startsWith('s3:')));
    expect(onBuckets.length).toBe(2);
    for (const { Action, Resource, Condition } of onBuckets) {
      if (Action.includes('s3:ListBucket'))
        expect(Condition).toEqual({ StringLike: { 's3:prefix': ['*/lance', '*/lance/*'] } });
      else expect(JSON.stringify(Resource)).toContain('/*/lance/*');
    }
    const others = statements.filter((one) => !onBuckets.includes(one)).flatMap(({ Action }) => Action);
    for (const action of others) expect(action).toMatch(/^(logs|xray):/);
    expect(Object.keys(lance.Properties.Environment.Variables)).toEqual(['INDEX_BUCKET']);
  });

  it('lets those call it that ask, keep or drop copies', () => {
    const callers = folders.filter((folder) =>
      statementsOf(enabled, roleOf(enabled, functionOf(enabled, folder))).some(
        ({ Action, Resource }) =>
          Action.includes('lambda:InvokeFunction') && JSON.stringify(Resource).includes('Lance'),
      ),
    );
    expect(callers.sort()).toEqual(['alert', 'compact', 'namespace', 'query', 'taxonomy']);
  });
});
