// What works in the background: jobs queue, workflows and their steps, plugins, the timer that sweeps.
import { CfnOutput, Duration, Stack } from 'aws-cdk-lib';
import * as events from 'aws-cdk-lib/aws-events';
import * as targets from 'aws-cdk-lib/aws-events-targets';
import type * as iam from 'aws-cdk-lib/aws-iam';
import * as lambda from 'aws-cdk-lib/aws-lambda';
import { SqsDestination } from 'aws-cdk-lib/aws-lambda-destinations';
import { DynamoEventSource, SqsDlq, SqsEventSource } from 'aws-cdk-lib/aws-lambda-event-sources';
import type * as sfn from 'aws-cdk-lib/aws-stepfunctions';
import type { Construct } from 'constructs';
import type { EnvironmentOf } from '../../functions/core/env.ts';
import { BatchWorkflow } from '../constructs/batch-workflow.ts';
import { ClusterWorkflow } from '../constructs/cluster-workflow.ts';
import { baseEnvironment, serviceEnvironment } from '../constructs/environment.ts';
import { ImageRunner } from '../constructs/image-runner.ts';
import { IsolatedNetwork } from '../constructs/isolated-network.ts';
import { LanceFunction } from '../constructs/lance-function.ts';
import { pythonLayer } from '../constructs/layers.ts';
import { NamespaceWorkflow } from '../constructs/namespace-workflow.ts';
import { PythonFunction } from '../constructs/python-function.ts';
import { DeadLetterQueue, QueueWithDlq } from '../constructs/queue-with-dlq.ts';
import {
  allowBucket,
  allowDueIndex,
  allowInvoke,
  allowLabels,
  allowPutEvents,
  allowSecret,
  allowSend,
  allowStart,
  allowTable,
  tableActions,
} from '../constructs/rights.ts';
import type { Runners } from '../constructs/runners.ts';
import { makeRunners, runnersOf } from '../constructs/runners.ts';
import { TaxonomyWorkflow } from '../constructs/taxonomy-workflow.ts';
import { TypeScriptFunction } from '../constructs/typescript-function.ts';
import { allowVectorBackends, vectorBackendsValue } from '../constructs/vector-backends.ts';
import type { StageSettings } from '../stage.ts';
import type { DataStack } from './data-stack.ts';
import { dueIndex } from './data-stack.ts';
import type { DeliveryStack } from './delivery-stack.ts';
import { stackProps } from './stack-props.ts';

export interface ProcessingStackProps {
  readonly settings: StageSettings;
  readonly data: DataStack;
  readonly delivery: DeliveryStack;
}

type StepLambda = 'batch' | 'chunk' | 'taxonomy' | 'alert' | 'cluster' | 'namespace';

export class ProcessingStack extends Stack {
  readonly jobs: QueueWithDlq;
  /** Work on indexes that takes minutes. */
  readonly indexJobs: QueueWithDlq;
  /** Outbox rows that the relay could not send, and runs of the sweeper that failed. */
  readonly leftovers: DeadLetterQueue;
  readonly runners: Runners;
  /** Where the stage runs plugins in container images. */
  readonly imageRunner: ImageRunner | undefined;
  readonly validator: PythonFunction;
  readonly clusterer: PythonFunction;
  /** Share the scan of an index that is too large for one function; each is called by itself. */
  readonly scanners: readonly TypeScriptFunction<'scan'>[];
  /** Where the stage has LanceDB. */
  readonly lance: LanceFunction | undefined;
  readonly steps: Readonly<Record<StepLambda, TypeScriptFunction>>;
  readonly relay: TypeScriptFunction<'relay'>;
  readonly starter: TypeScriptFunction<'starter'>;
  readonly compact: TypeScriptFunction<'compact'>;
  readonly sweep: TypeScriptFunction<'sweep'>;
  readonly machines: Readonly<Record<'batch' | 'cluster' | 'taxonomy' | 'namespace', sfn.StateMachine>>;
  readonly #settings: StageSettings;
  readonly #data: DataStack;

  constructor(scope: Construct, id: string, { settings, data, delivery }: ProcessingStackProps) {
    super(scope, id, stackProps(id, settings));
    this.#settings = settings;
    this.#data = data;

    this.validator = new PythonFunction(this, 'PluginValidator', {
      folder: 'plugin-validator',
      settings,
      architecture: lambda.Architecture.X86_64,
    });
    const network =
      settings.runnerNetwork === 'isolated'
        ? new IsolatedNetwork(this, 'RunnerNetwork', { buckets: [data.blobs, data.archives] })
        : undefined;
    this.runners = makeRunners(this, settings, network);
    this.imageRunner = settings.containerImages
      ? new ImageRunner(this, 'ImageRunner', { settings, network })
      : undefined;
    this.lance = settings.lancedb
      ? new LanceFunction(this, 'Lance', { settings, index: data.index })
      : undefined;
    this.clusterer = new PythonFunction(this, 'Clusterer', {
      folder: 'clusterer',
      settings,
      // hdbscan has no Linux wheel for arm64.
      architecture: lambda.Architecture.X86_64,
      ...(settings.layers
        ? { layer: pythonLayer(this, 'ClusterPackages', 'python-cluster', lambda.Architecture.X86_64) }
        : {}),
    });

    this.scanners = this.makeScanners();
    this.steps = this.makeSteps();
    this.machines = this.makeMachines();

    this.jobs = new QueueWithDlq(this, 'Jobs', {
      consumerTimeout: Duration.seconds(settings.sizing.starter.timeoutSeconds),
    });
    this.indexJobs = new QueueWithDlq(this, 'IndexJobs', {
      consumerTimeout: Duration.seconds(settings.sizing.compact.timeoutSeconds),
    });
    this.leftovers = new DeadLetterQueue(this, 'Leftovers');
    this.relay = this.makeRelay();
    this.starter = this.makeStarter();
    this.compact = this.makeCompact();
    this.sweep = this.makeSweep(delivery);
    this.makeOutputs();
  }

  /** The right to run users' code, and to open the secrets that it declares. */
  allowPlugins(role: iam.IRole): void {
    allowInvoke(role, ...runnersOf(this.runners).map((runner) => runner.function));
    allowSecret(role, this.#data.pepper);
    this.imageRunner?.allowInvoke(role);
  }

  /**
   * Functions of their own rather than more environments of one: a call reaches any environment of a function, and its
   * memory must hold the segments that the call is about.
   */
  private makeScanners(): ProcessingStack['scanners'] {
    const settings = this.#settings;
    const { index } = this.#data;
    return Array.from({ length: settings.scanFunctions }, (_, i) => {
      const scanner = new TypeScriptFunction(this, `Scan${i}`, {
        lambda: 'scan',
        settings,
        environment: { STAGE: settings.stage, LOG_LEVEL: settings.logLevel, INDEX_BUCKET: index.bucketName },
      });
      allowBucket(scanner.role, index, 'read');
      return scanner;
    });
  }

  private makeSteps(): ProcessingStack['steps'] {
    const data = this.#data;
    const settings = this.#settings;
    const shared = serviceEnvironment(
      data,
      {
        runners: this.runners,
        imageRunner: this.imageRunner,
        validatorName: this.validator.function.functionName,
        scannerNames: this.scanners.map(({ function: { functionName } }) => functionName),
        lance: this.lance?.function,
      },
      settings,
    );
    const make = <L extends StepLambda>(id: string, name: L, environment: EnvironmentOf<L>) => {
      const made = new TypeScriptFunction(this, id, { lambda: name, settings, environment });
      allowTable(made.role, data.table, [...tableActions.read, ...tableActions.write]);
      return made;
    };

    const batch = make('Batch', 'batch', shared);
    // Deletes: what earlier batches left is tidied after each one.
    allowBucket(batch.role, data.blobs, 'read', 'write', 'delete');
    allowBucket(batch.role, data.archives, 'read');
    allowBucket(batch.role, data.index, 'read', 'write', 'delete');

    const chunk = make('Chunk', 'chunk', shared);
    allowBucket(chunk.role, data.blobs, 'read', 'write');
    allowBucket(chunk.role, data.archives, 'read');
    allowBucket(chunk.role, data.index, 'read', 'write');
    this.allowPlugins(chunk.role);

    const taxonomy = make('Taxonomy', 'taxonomy', shared);
    allowBucket(taxonomy.role, data.blobs, 'read', 'write');
    allowBucket(taxonomy.role, data.archives, 'read');
    allowBucket(taxonomy.role, data.index, 'read', 'write');
    this.allowPlugins(taxonomy.role);
    allowInvoke(taxonomy.role, ...this.scanners.map((scanner) => scanner.function));

    const alert = make('Alert', 'alert', shared);
    allowBucket(alert.role, data.blobs, 'read', 'write');
    allowBucket(alert.role, data.archives, 'read');
    allowBucket(alert.role, data.index, 'read');
    this.allowPlugins(alert.role);
    allowInvoke(alert.role, ...this.scanners.map((scanner) => scanner.function));

    // Signs the clusterer's URLs: it can give no right that this role does not have.
    const cluster = make('Cluster', 'cluster', {
      ...shared,
      LABEL_MODEL: JSON.stringify(settings.labels),
    });
    allowBucket(cluster.role, data.blobs, 'read', 'write');
    allowBucket(cluster.role, data.index, 'read', 'write');
    allowLabels(cluster.role, settings.labels);

    const namespace = make('Namespace', 'namespace', shared);
    for (const bucket of [data.blobs, data.archives, data.index])
      allowBucket(namespace.role, bucket, 'read', 'delete');

    const backends = { data, lance: this.lance?.function };
    for (const searching of [taxonomy, alert]) allowVectorBackends(searching.role, backends, 'query');
    allowVectorBackends(namespace.role, backends, 'drop');
    this.imageRunner?.allowRemove(namespace.role);

    return { batch, chunk, taxonomy, alert, cluster, namespace };
  }

  private makeMachines(): ProcessingStack['machines'] {
    const settings = this.#settings;
    const { batch, chunk, taxonomy, alert, cluster, namespace } = this.steps;
    const clusterMachine = new ClusterWorkflow(this, 'ClusterWorkflow', {
      settings,
      cluster: cluster.function,
      clusterer: this.clusterer.function,
    }).machine;
    return {
      cluster: clusterMachine,
      batch: new BatchWorkflow(this, 'BatchWorkflow', {
        settings,
        blobs: this.#data.blobs,
        batch: batch.function,
        chunk: chunk.function,
        taxonomy: taxonomy.function,
        cluster: cluster.function,
        alert: alert.function,
        clusterMachine,
      }).machine,
      taxonomy: new TaxonomyWorkflow(this, 'TaxonomyWorkflow', { settings, taxonomy: taxonomy.function })
        .machine,
      namespace: new NamespaceWorkflow(this, 'NamespaceWorkflow', { settings, namespace: namespace.function })
        .machine,
    };
  }

  private makeRelay(): TypeScriptFunction<'relay'> {
    const data = this.#data;
    const relay = new TypeScriptFunction(this, 'Relay', {
      lambda: 'relay',
      settings: this.#settings,
      environment: {
        ...baseEnvironment(data, this.#settings),
        JOBS_QUEUE_URL: this.jobs.queue.queueUrl,
        EVENT_BUS: data.bus.eventBusName,
      },
    });
    // A row that was sent is deleted; it needs nothing else of the table.
    allowTable(relay.role, data.table, ['dynamodb:DeleteItem']);
    allowSend(relay.role, this.jobs.queue);
    allowPutEvents(relay.role, data.bus);
    relay.function.addEventSource(
      new DynamoEventSource(data.table, {
        // From the oldest record: what is written while this is being set up counts too.
        startingPosition: lambda.StartingPosition.TRIM_HORIZON,
        batchSize: 100,
        bisectBatchOnError: true,
        reportBatchItemFailures: true,
        // The sweeper sends what is given up here after a minute, so one bad row need not stop the others for long.
        retryAttempts: 5,
        maxRecordAge: Duration.hours(1),
        onFailure: new SqsDlq(this.leftovers),
        filters: [
          lambda.FilterCriteria.filter({
            eventName: lambda.FilterRule.isEqual('INSERT'),
            dynamodb: { Keys: { pk: { S: lambda.FilterRule.beginsWith('OUTBOX#') } } },
          }),
        ],
      }),
    );
    return relay;
  }

  private makeStarter(): TypeScriptFunction<'starter'> {
    const data = this.#data;
    const { batch, cluster, taxonomy, namespace } = this.machines;
    const starter = new TypeScriptFunction(this, 'Starter', {
      lambda: 'starter',
      settings: this.#settings,
      environment: {
        ...baseEnvironment(data, this.#settings),
        JOBS_QUEUE_URL: this.jobs.queue.queueUrl,
        INDEX_JOBS_QUEUE_URL: this.indexJobs.queue.queueUrl,
        BATCH_WORKFLOW: batch.stateMachineArn,
        CLUSTER_WORKFLOW: cluster.stateMachineArn,
        TAXONOMY_WORKFLOW: taxonomy.stateMachineArn,
        NAMESPACE_WORKFLOW: namespace.stateMachineArn,
      },
    });
    allowTable(starter.role, data.table, [...tableActions.read, ...tableActions.write]);
    allowStart(
      starter.role,
      Object.values(this.machines).map((machine) => machine.stateMachineArn),
    );
    // A batch that waits for another of its collection goes back into the queue.
    allowSend(starter.role, this.jobs.queue, this.indexJobs.queue);
    starter.function.addEventSource(
      new SqsEventSource(this.jobs.queue, {
        batchSize: 10,
        reportBatchItemFailures: true,
        maxConcurrency: this.#settings.queueConcurrency,
      }),
    );
    return starter;
  }

  /** Compacts indexes and deletes what they do not name any more: one job a run. */
  private makeCompact(): TypeScriptFunction<'compact'> {
    const data = this.#data;
    const settings = this.#settings;
    const compact = new TypeScriptFunction(this, 'Compact', {
      lambda: 'compact',
      settings,
      environment: {
        ...baseEnvironment(data, settings),
        BLOB_BUCKET: data.blobs.bucketName,
        INDEX_BUCKET: data.index.bucketName,
        VECTOR_BACKENDS: vectorBackendsValue({ data, lance: this.lance?.function }),
      },
    });
    allowVectorBackends(compact.role, { data, lance: this.lance?.function }, 'sync');
    allowTable(compact.role, data.table, [...tableActions.read, ...tableActions.write]);
    // Documents of exports and imports, and their files.
    allowBucket(compact.role, data.blobs, 'read', 'write');
    allowBucket(compact.role, data.index, 'read', 'write', 'delete');
    compact.function.addEventSource(
      new SqsEventSource(this.indexJobs.queue, {
        batchSize: 1,
        reportBatchItemFailures: true,
        maxConcurrency: settings.queueConcurrency,
      }),
    );
    return compact;
  }

  private makeSweep(delivery: DeliveryStack): TypeScriptFunction<'sweep'> {
    const data = this.#data;
    const sweep = new TypeScriptFunction(this, 'Sweep', {
      lambda: 'sweep',
      settings: this.#settings,
      environment: {
        ...baseEnvironment(data, this.#settings),
        JOBS_QUEUE_URL: this.jobs.queue.queueUrl,
        EVENT_BUS: data.bus.eventBusName,
        DELIVERIES_QUEUE_URL: delivery.deliveries.queue.queueUrl,
      },
    });
    allowTable(sweep.role, data.table, [...tableActions.read, ...tableActions.write]);
    allowDueIndex(sweep.role, data.table, dueIndex);
    allowSend(sweep.role, this.jobs.queue, delivery.deliveries.queue);
    allowPutEvents(sweep.role, data.bus);
    // The timer calls it without waiting: what fails twice is seen here.
    sweep.function.configureAsyncInvoke({
      retryAttempts: 1,
      maxEventAge: Duration.minutes(5),
      onFailure: new SqsDestination(this.leftovers),
    });
    new events.Rule(this, 'EveryMinute', {
      description:
        'Sends again what was not sent, ends what is past its deadline, deletes what nothing names',
      schedule: events.Schedule.rate(Duration.minutes(1)),
      targets: [
        new targets.LambdaFunction(sweep.function, {
          deadLetterQueue: this.leftovers,
          maxEventAge: Duration.minutes(5),
          retryAttempts: 2,
        }),
      ],
    });
    return sweep;
  }

  private makeOutputs(): void {
    const outputs: Record<string, string> = {
      BatchWorkflowArn: this.machines.batch.stateMachineArn,
      ClusterWorkflowArn: this.machines.cluster.stateMachineArn,
      TaxonomyWorkflowArn: this.machines.taxonomy.stateMachineArn,
      NamespaceWorkflowArn: this.machines.namespace.stateMachineArn,
      JobsQueueUrl: this.jobs.queue.queueUrl,
      JobsDlqUrl: this.jobs.deadLetters.queueUrl,
      IndexJobsQueueUrl: this.indexJobs.queue.queueUrl,
      IndexJobsDlqUrl: this.indexJobs.deadLetters.queueUrl,
      LeftoversQueueUrl: this.leftovers.queueUrl,
      RunnerFunctionName: this.runners.standard.function.functionName,
      ValidatorFunctionName: this.validator.function.functionName,
      ClustererFunctionName: this.clusterer.function.functionName,
      RelayFunctionName: this.relay.function.functionName,
      StarterFunctionName: this.starter.function.functionName,
      CompactFunctionName: this.compact.function.functionName,
      SweepFunctionName: this.sweep.function.functionName,
    };
    for (const [name, { function: made }] of Object.entries(this.steps)) {
      outputs[`${name[0]!.toUpperCase()}${name.slice(1)}FunctionName`] = made.functionName;
    }
    for (const [i, scanner] of this.scanners.entries())
      outputs[`Scan${i}FunctionName`] = scanner.function.functionName;
    for (const [name, value] of Object.entries(outputs)) new CfnOutput(this, name, { value });
  }
}
