// The state machines as data: order of steps, what is caught where, what each Lambda is told.
import middy from '@middy/core';
import type { Context } from 'aws-lambda';
import { describe, expect, it } from 'vitest';
import { errorTable } from '../../functions/core/errors.ts';
import { batchDefinition } from '../../infra/constructs/batch-workflow.ts';
import { clusterDefinition } from '../../infra/constructs/cluster-workflow.ts';
import { namespaceDefinition } from '../../infra/constructs/namespace-workflow.ts';
import type { Definition } from '../../infra/constructs/states.ts';
import { retryableCodes } from '../../infra/constructs/states.ts';
import { taxonomyDefinition } from '../../infra/constructs/taxonomy-workflow.ts';
import { stage } from './synthesised.ts';

// biome-ignore lint/suspicious/noExplicitAny: states are what the Amazon States Language takes.
type AnyState = Record<string, any>;

const batch = batchDefinition({
  partition: 'aws',
  blobBucket: 'blobs',
  batch: 'arn:batch',
  chunk: 'arn:chunk',
  taxonomy: 'arn:taxonomy',
  cluster: 'arn:cluster',
  alert: 'arn:alert',
  clusterMachine: 'arn:cluster-machine',
  mapConcurrency: 7,
  stepSeconds: 300,
});
const cluster = clusterDefinition({
  cluster: 'arn:cluster',
  clusterer: 'arn:clusterer',
  stepSeconds: 300,
  clustererSeconds: 900,
});
const taxonomy = taxonomyDefinition({ taxonomy: 'arn:taxonomy', stepSeconds: 300 });
const namespace = namespaceDefinition({ namespace: 'arn:namespace', stepSeconds: 300 });
const machines: Record<string, Definition> = { batch, cluster, taxonomy, namespace };

const statesOf = (definition: Definition) => definition.States as Record<string, AnyState>;

function nested(definition: { States?: object }): [string, AnyState][] {
  return Object.entries((definition.States ?? {}) as Record<string, AnyState>).flatMap(([name, state]) => [
    [name, state] as [string, AnyState],
    ...(state.ItemProcessor ? nested(state.ItemProcessor) : []),
  ]);
}

/** Names that a state may go to. */
function nextOf(state: AnyState): string[] {
  return [
    state.Next,
    state.Default,
    ...(state.Catch ?? []).map((c: AnyState) => c.Next),
    ...(state.Choices ?? []).map((c: AnyState) => c.Next),
  ].filter((name) => name !== undefined);
}

describe.each(Object.entries(machines))('the %s workflow', (_name, definition) => {
  it('goes only to states that are there, reaches each, and each goes on or ends', () => {
    const check = (machine: { StartAt: string; States: object }) => {
      const states = machine.States as Record<string, AnyState>;
      const reached = new Set([machine.StartAt]);
      for (const name of reached) {
        expect(states[name], name).toBeDefined();
        for (const next of nextOf(states[name]!)) reached.add(next);
      }
      expect([...reached].sort()).toEqual(Object.keys(states).sort());
      for (const [name, state] of Object.entries(states)) {
        const ends = state.End === true || ['Succeed', 'Fail'].includes(state.Type);
        expect(
          ends !== nextOf(state).some((next) => next === state.Next || next === state.Default),
          name,
        ).toBe(true);
        if (state.ItemProcessor) check(state.ItemProcessor);
      }
    };
    check(definition);
  });

  it('bounds every task in time and retries the faults of services on every Lambda', () => {
    const tasks = nested(definition).filter(([, state]) => state.Type === 'Task');
    expect(tasks.length).toBeGreaterThan(0);
    for (const [name, state] of tasks) {
      expect(state.TimeoutSeconds, name).toBeGreaterThan(0);
      if (state.Resource.includes(':states:::')) continue;
      const retried = state.Retry.flatMap((r: AnyState) => r.ErrorEquals);
      expect(retried, name).toEqual(
        expect.arrayContaining(['Lambda.TooManyRequestsException', 'storage_throttled', 'States.Timeout']),
      );
      for (const retry of state.Retry) expect(retry.BackoffRate, name).toBeGreaterThan(1);
    }
  });

  it('tries a Lambda again that ran out of time, also where its own middleware was the first to notice', async () => {
    const slow = middy(() => new Promise(() => undefined));
    const noTime = { getRemainingTimeInMillis: () => 6 } as Context;
    const { name } = (await slow({}, noTime).catch((error: unknown) => error)) as Error;
    for (const [state, task] of nested(definition)) {
      if (task.Type !== 'Task' || task.Resource.includes(':states:::')) continue;
      const retried = task.Retry.flatMap((r: AnyState) => r.ErrorEquals);
      expect(retried, state).toEqual(expect.arrayContaining([name, 'States.Timeout', 'Sandbox.Timedout']));
    }
  });

  it('ends each list of retries and catches with States.ALL, as the language demands, and uses it alone', () => {
    for (const [name, state] of nested(definition)) {
      for (const entries of [state.Retry ?? [], state.Catch ?? []]) {
        for (const [i, { ErrorEquals }] of entries.entries()) {
          if (!ErrorEquals.includes('States.ALL')) continue;
          expect(ErrorEquals, name).toEqual(['States.ALL']);
          expect(i, name).toBe(entries.length - 1);
        }
      }
    }
  });

  it('uses nothing that an emulator lacks: no JSONata, ItemBatcher, ResultWriter or tolerated failures', () => {
    expect(JSON.stringify(definition)).not.toMatch(/JSONata|ItemBatcher|ResultWriter|Tolerated|Assign/);
  });

  it('reads no path of the state that nothing has set', () => {
    const begin = statesOf(definition)[definition.StartAt]!;
    const set = new Set(Object.keys(begin.Parameters).map((key) => key.replace(/\.\$$/, '')));
    for (const [, state] of Object.entries(statesOf(definition))) {
      for (const path of [state.ResultPath, ...(state.Catch ?? []).map((c: AnyState) => c.ResultPath)]) {
        if (typeof path === 'string') set.add(path.split('.')[1]!);
      }
    }
    for (const [name, state] of Object.entries(statesOf(definition))) {
      if (name === definition.StartAt || !state.Parameters) continue;
      for (const [key, value] of Object.entries(state.Parameters)) {
        if (key.endsWith('.$')) expect(set, `${name} reads ${value}`).toContain(String(value).split('.')[1]);
      }
    }
  });

  it('tells every step the whole job', () => {
    const begin = statesOf(definition)[definition.StartAt]!;
    const jobFields = Object.entries(begin.Parameters).filter(
      ([, value]) => typeof value === 'string' && value.startsWith('$.'),
    );
    expect(jobFields.length).toBeGreaterThan(3);
    for (const [name, state] of Object.entries(statesOf(definition))) {
      if (state.Parameters?.step === undefined) continue;
      for (const [key, value] of jobFields) expect(state.Parameters[key], name).toBe(value);
    }
  });
});

describe('retries', () => {
  it('are for codes that say that the same step may succeed later, never for refusals', () => {
    expect(retryableCodes).toEqual(
      expect.arrayContaining(['storage_throttled', 'index_contended', 'plugin_unavailable']),
    );
    for (const code of retryableCodes)
      expect(errorTable[code as keyof typeof errorTable].retryable).toBe(true);
    expect(retryableCodes).not.toContain('plugin_failed');
    expect(retryableCodes).not.toContain('batch_wrong_state');
  });
});

describe('a batch', () => {
  const states = statesOf(batch);

  it('is planned, mapped, committed, enriched, clustered, checked for alerts and finished, in this order', () => {
    const order: string[] = [];
    // A choice that goes back is a loop; what comes after it is the first state that was not passed yet.
    const after = (name: string): string | undefined => {
      const { Next, Choices = [], Default } = states[name]!;
      const targets = [Next, ...Choices.map((choice: { Next: string }) => choice.Next), Default];
      return targets.find((target) => target !== undefined && !order.includes(target));
    };
    for (let name: string | undefined = batch.StartAt; name !== undefined; name = after(name))
      order.push(name);
    expect(order).toEqual([
      'Begin',
      'Plan',
      'HasChunks',
      'Chunks',
      'Commit',
      'Taxonomies',
      'MoreTaxonomies',
      'Clusters',
      'ClustersFollow',
      'ClusterRuns',
      'Alerts',
      'Finish',
    ]);
    expect(states.HasChunks!.Default).toBe('Commit');
    expect(states.ClustersFollow!.Default).toBe('Alerts');
    expect(states.MoreTaxonomies!.Choices[0]).toMatchObject({ IsNull: false, Next: 'Taxonomies' });
  });

  it('goes to Fail, with the error, whatever happens until it is committed', () => {
    for (const name of ['Plan', 'Chunks', 'Commit']) {
      expect(states[name]!.Catch, name).toEqual([
        { ErrorEquals: ['States.ALL'], ResultPath: '$.error', Next: 'Fail' },
      ]);
    }
    expect(states.Fail!.Parameters).toMatchObject({ step: 'fail', 'error.$': '$.error' });
  });

  it('cannot fail after its commit: what goes wrong is noted and the next step begins', () => {
    const expected = { Taxonomies: 'Clusters', Clusters: 'Alerts', ClusterRuns: 'Alerts', Alerts: 'Finish' };
    for (const [name, next] of Object.entries(expected)) {
      const [caught] = states[name]!.Catch;
      expect(caught.Next, name).toBe(next);
      expect(caught.ResultPath, name).toMatch(/^\$\.post_errors\.(taxonomies|clusters|alerts)$/);
    }
    expect(states.Finish!.Catch).toBeUndefined();
    expect(states.Finish!.Parameters).toMatchObject({
      step: 'finish',
      'post_errors.$': '$.post_errors',
      'cluster_runs.$': '$.cluster_runs',
    });
  });

  it('reads the list of chunks from S3, runs children that cannot fail and keeps none of their results', () => {
    const map = states.Chunks!;
    expect(map.ItemReader).toEqual({
      Resource: 'arn:aws:states:::s3:getObject',
      ReaderConfig: { InputType: 'JSON' },
      Parameters: { Bucket: 'blobs', 'Key.$': '$.plan.chunks_key' },
    });
    // The plan knows the plugins; the stage's own limit is what it begins with.
    expect(map.MaxConcurrencyPath).toBe('$.plan.max_concurrency');
    expect(map).not.toHaveProperty('MaxConcurrency');
    expect(states.Plan!.Parameters.map_concurrency).toBe(7);
    expect(map.ResultPath).toBeNull();
    expect(map.ItemProcessor.ProcessorConfig).toEqual({ Mode: 'DISTRIBUTED', ExecutionType: 'STANDARD' });
    const { Chunk, Done } = map.ItemProcessor.States;
    expect(Chunk.Catch).toEqual([{ ErrorEquals: ['States.ALL'], ResultPath: '$.error', Next: 'Done' }]);
    expect(Chunk.Parameters).toEqual({ step: 'chunk', 'job.$': '$.job', 'item.$': '$.item' });
    expect(Done).toEqual({ Type: 'Pass', Result: {}, End: true });
  });

  it('waits for the clusters that follow it, and a failed one does not stop the others', () => {
    const { ClusterRun, ClusterRunFailed } = states.ClusterRuns!.ItemProcessor.States;
    expect(ClusterRun.Resource).toBe('arn:aws:states:::states:startExecution.sync:2');
    expect(ClusterRun.Parameters).toEqual({
      StateMachineArn: 'arn:cluster-machine',
      'Name.$': '$.run_id',
      'Input.$': '$',
    });
    expect(ClusterRun.Catch[0].Next).toBe('ClusterRunFailed');
    expect(ClusterRunFailed.End).toBe(true);
  });

  it('has six hours', () => {
    expect(batch.TimeoutSeconds).toBe(6 * 3600);
  });
});

describe('a cluster run', () => {
  const states = statesOf(cluster);

  it('gives the clusterer the prepared request alone', () => {
    expect(states.Cluster).toMatchObject({
      Resource: 'arn:clusterer',
      InputPath: '$.prepared.request',
      ResultPath: '$.clustered',
    });
    expect(states.Cluster!.Parameters).toBeUndefined();
    expect(states.HasRows!.Default).toBe('Commit');
  });

  it('fails for its caller too after it has said so in its row, but for labels, which it can do without', () => {
    for (const name of ['Prepare', 'Cluster', 'Commit'])
      expect(states[name]!.Catch[0].Next, name).toBe('Fail');
    expect(states.Label!.Catch[0]).toMatchObject({ Next: 'Commit', ResultPath: '$.label_error' });
    expect(states.Fail!.Next).toBe('Failed');
    expect(states.Failed!.Type).toBe('Fail');
  });
});

describe('loops', () => {
  it('a taxonomy run goes on while there is a cursor', () => {
    const states = statesOf(taxonomy);
    expect(states.Run!.Parameters).toMatchObject({ step: 'run', 'cursor.$': '$.progress.cursor' });
    expect(states.HasMore!.Choices[0].Next).toBe('Run');
    expect(states.HasMore!.Default).toBe('Finish');
    for (const name of ['Run', 'Finish']) expect(states[name]!.Catch[0].Next).toBe('Fail');
  });

  it('a namespace is deleted until the step says that it is done', () => {
    const states = statesOf(namespace);
    expect(states.IsDone!.Choices).toEqual([
      { Variable: '$.progress.done', BooleanEquals: true, Next: 'Done' },
    ]);
    expect(states.IsDone!.Default).toBe('Delete');
    expect(states.Delete!.Catch[0].Next).toBe('Fail');
  });
});

describe('the machines in the template', () => {
  it('are of the standard type, traced, and log errors without data', () => {
    const all = stage('prod').ofType('AWS::StepFunctions::StateMachine');
    expect(all.length).toBe(4);
    for (const { id, Properties } of all) {
      expect(Properties.StateMachineType, id).toBe('STANDARD');
      expect(Properties.TracingConfiguration, id).toEqual({ Enabled: true });
      expect(Properties.LoggingConfiguration, id).toMatchObject({
        Level: 'ERROR',
        IncludeExecutionData: false,
      });
    }
  });

  it('run few chunks at a time in the local stage, where each is a process', () => {
    const text = JSON.stringify(
      stage('local').one('AWS::StepFunctions::StateMachine', 'BatchWorkflow').Properties.DefinitionString,
    );
    expect(text).toContain('\\"map_concurrency\\":2');
    expect(text).toContain('\\"MaxConcurrencyPath\\":\\"$.plan.max_concurrency\\"');
  });
});
