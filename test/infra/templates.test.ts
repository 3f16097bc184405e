// Promises of the templates that no emulator keeps: durability, privacy, dead letters, retention.
import { statSync } from 'node:fs';
import { Stage } from 'aws-cdk-lib';
import { describe, expect, it } from 'vitest';
import type { Resource } from './synthesised.ts';
import { functionIds, functionOf, stage } from './synthesised.ts';

const stages = ['local', 'dev', 'prod'];
const custom = /^(Custom::|AWS::CloudFormation::CustomResource)/;

describe.each(stages)('in the stage %s', (name) => {
  const synthesised = stage(name);
  const { ofType } = synthesised;

  it('every queue has a dead-letter queue after five failures, or is one and keeps messages for 14 days', () => {
    const queues = ofType('AWS::SQS::Queue');
    const redriven = queues.filter(({ Properties }) => Properties.RedrivePolicy);
    const targets = new Set(
      redriven.map(({ Properties }) => Properties.RedrivePolicy.deadLetterTargetArn['Fn::GetAtt'][0]),
    );
    expect(redriven.length).toBe(3);
    for (const { Properties } of redriven) expect(Properties.RedrivePolicy.maxReceiveCount).toBe(5);
    for (const queue of queues) {
      expect(queue.Properties.MessageRetentionPeriod, queue.id).toBe(14 * 86_400);
      expect(queue.Properties.SqsManagedSseEnabled, queue.id).toBe(true);
      expect(
        redriven.includes(queue) || targets.has(queue.id) || queue.id.startsWith('Leftovers'),
        queue.id,
      ).toBe(true);
    }
  });

  it('a message stays hidden for six times the longest run of its consumer, and failures are reported one by one', () => {
    const mappings = ofType('AWS::Lambda::EventSourceMapping').filter(
      ({ Properties }) => !('StartingPosition' in Properties),
    );
    expect(mappings.length).toBe(3);
    for (const mapping of mappings) {
      const [queueId] = mapping.Properties.EventSourceArn['Fn::GetAtt'];
      const queue = ofType('AWS::SQS::Queue').find(({ id }) => id === queueId)!;
      const consumer = ofType('AWS::Lambda::Function').find(
        ({ id }) => id === mapping.Properties.FunctionName.Ref,
      )!;
      expect(queue.Properties.VisibilityTimeout).toBeGreaterThanOrEqual(6 * consumer.Properties.Timeout);
      expect(mapping.Properties.FunctionResponseTypes).toEqual(['ReportBatchItemFailures']);
      expect(mapping.Properties.ScalingConfig.MaximumConcurrency).toBeGreaterThanOrEqual(2);
    }
  });

  it('work on indexes has a queue of its own, of which a run takes one job', () => {
    const queue = synthesised.one('AWS::SQS::Queue', 'IndexJobsQueue');
    const mapping = ofType('AWS::Lambda::EventSourceMapping').find(
      ({ Properties }) => Properties.EventSourceArn['Fn::GetAtt']?.[0] === queue.id,
    );
    expect(mapping?.Properties.BatchSize).toBe(1);
    const worker = functionOf(synthesised, 'compact');
    expect(mapping?.Properties.FunctionName.Ref).toBe(worker.id);
    expect(worker.Properties.Timeout).toBe(900);
    expect(worker.Properties.ReservedConcurrentExecutions !== undefined).toBe(name === 'prod');
  });

  it('queues and buckets refuse connections without TLS', () => {
    const policies = [...ofType('AWS::SQS::QueuePolicy'), ...ofType('AWS::S3::BucketPolicy')];
    for (const owner of [...ofType('AWS::SQS::Queue'), ...ofType('AWS::S3::Bucket')]) {
      const denied = policies
        .filter(({ Properties }) => JSON.stringify(Properties).includes(`"${owner.id}"`))
        .flatMap(({ Properties }) => Properties.PolicyDocument.Statement);
      expect(
        denied.some((s) => s.Effect === 'Deny' && s.Condition?.Bool?.['aws:SecureTransport'] === 'false'),
        owner.id,
      ).toBe(true);
    }
  });

  it('no bucket can be public, and each is encrypted', () => {
    const buckets = ofType('AWS::S3::Bucket');
    expect(buckets.length).toBeGreaterThanOrEqual(3);
    for (const { id, Properties } of buckets) {
      expect(Properties.PublicAccessBlockConfiguration, id).toEqual({
        BlockPublicAcls: true,
        BlockPublicPolicy: true,
        IgnorePublicAcls: true,
        RestrictPublicBuckets: true,
      });
      expect(Properties.BucketEncryption, id).toBeDefined();
      expect(JSON.stringify(Properties.OwnershipControls), id).toContain('BucketOwnerEnforced');
    }
    for (const policy of ofType('AWS::S3::BucketPolicy')) {
      for (const statement of policy.Properties.PolicyDocument.Statement) {
        const open = JSON.stringify(statement.Principal) === '{"AWS":"*"}' || statement.Principal === '*';
        expect(open && statement.Effect === 'Allow', policy.id).toBe(false);
      }
    }
  });

  it('uploads that nobody confirmed go after a day, and nothing deletes live segments', () => {
    const rules = (id: string) =>
      synthesised.one('AWS::S3::Bucket', id).Properties.LifecycleConfiguration.Rules as {
        Prefix?: string;
        ExpirationInDays?: number;
        NoncurrentVersionExpiration?: { NoncurrentDays: number };
      }[];
    for (const id of ['Blobs', 'Archives']) {
      expect(rules(id)).toContainEqual(expect.objectContaining({ Prefix: 'uploads/', ExpirationInDays: 1 }));
    }
    const batches = rules('Blobs').find(({ Prefix }) => Prefix === 'batches/')!;
    expect(batches.ExpirationInDays).toBeGreaterThan(7);
    expect(synthesised.one('AWS::S3::Bucket', 'Index').Properties.VersioningConfiguration).toEqual({
      Status: 'Enabled',
    });
    for (const rule of rules('Index')) expect(rule.ExpirationInDays).toBeUndefined();
    expect(rules('Index')).toContainEqual(
      expect.objectContaining({ NoncurrentVersionExpiration: { NoncurrentDays: 7 } }),
    );
    for (const rule of [...rules('Blobs'), ...rules('Archives')]) {
      if (rule.ExpirationInDays !== undefined) expect(rule.Prefix).toMatch(/^[a-z]+\/$/);
    }
  });

  it('the table has point-in-time recovery, time to live, a stream of new images and the one sparse index', () => {
    const { Properties } = synthesised.one('AWS::DynamoDB::Table', 'Table');
    expect(Properties.PointInTimeRecoverySpecification).toEqual({ PointInTimeRecoveryEnabled: true });
    expect(Properties.TimeToLiveSpecification).toEqual({ AttributeName: 'expires_at', Enabled: true });
    expect(Properties.StreamSpecification).toEqual({ StreamViewType: 'NEW_IMAGE' });
    expect(Properties.BillingMode).toBe('PAY_PER_REQUEST');
    expect(Properties.KeySchema).toEqual([
      { AttributeName: 'pk', KeyType: 'HASH' },
      { AttributeName: 'sk', KeyType: 'RANGE' },
    ]);
    expect(Properties.GlobalSecondaryIndexes).toEqual([
      {
        IndexName: 'due',
        KeySchema: [
          { AttributeName: 'due_pk', KeyType: 'HASH' },
          { AttributeName: 'due_at', KeyType: 'RANGE' },
        ],
        Projection: { ProjectionType: 'ALL' },
      },
    ]);
  });

  it('data outlives the stack exactly where the stage says so', () => {
    const kept = synthesised.settings.keepData;
    expect(kept).toBe(name === 'prod');
    const table = synthesised.one('AWS::DynamoDB::Table', 'Table');
    expect(table.Properties.DeletionProtectionEnabled).toBe(kept);
    for (const type of ['AWS::DynamoDB::Table', 'AWS::S3::Bucket', 'AWS::SecretsManager::Secret']) {
      for (const one of ofType(type)) expect(one.DeletionPolicy, one.id).toBe(kept ? 'Retain' : 'Delete');
    }
  });

  it('every function has memory, a timeout, JSON logs and an own log group with retention', () => {
    const functions = ofType('AWS::Lambda::Function');
    // One folder, several functions: those that share the scan of a large index, and the runner of large plugins.
    const { scanFunctions, runnerLarge } = stage(name).settings;
    expect(functions.length).toBe(
      Object.keys(functionIds).length - 1 + scanFunctions + (runnerLarge ? 1 : 0),
    );
    for (const { id, stack, Properties } of functions) {
      expect(Properties.MemorySize, id).toBeGreaterThanOrEqual(128);
      expect(Properties.Timeout, id).toBeGreaterThan(0);
      expect(Properties.LoggingConfig.LogFormat, id).toBe('JSON');
      const group = ofType('AWS::Logs::LogGroup').find(
        (one) => one.stack === stack && one.id === Properties.LoggingConfig.LogGroup.Ref,
      );
      expect(group?.Properties.RetentionInDays, id).toBe(30);
    }
    for (const group of ofType('AWS::Logs::LogGroup'))
      expect(group.Properties.RetentionInDays, group.id).toBe(30);
  });

  it('TypeScript runs on Node 24 for arm64 with traces, Python on 3.13 where the wheels are', () => {
    for (const folder of Object.keys(functionIds) as (keyof typeof functionIds)[]) {
      const { Properties } = functionOf(synthesised, folder);
      const python = ['plugin-validator', 'plugin-runner', 'clusterer'].includes(folder);
      expect(Properties.Runtime, folder).toBe(python ? 'python3.13' : 'nodejs24.x');
      expect(Properties.Architectures, folder).toEqual([python ? 'x86_64' : 'arm64']);
      expect(Properties.TracingConfig?.Mode, folder).toBe(python ? undefined : 'Active');
    }
  });

  it('plugins get an environment per tenant everywhere but on the emulator, and layers likewise', () => {
    const expected = name === 'local' ? undefined : { TenantIsolationMode: 'PER_TENANT' };
    expect(functionOf(synthesised, 'plugin-runner').Properties.TenancyConfig).toEqual(expected);
    for (const folder of ['plugin-runner', 'clusterer'] as const) {
      expect(functionOf(synthesised, folder).Properties.Layers?.length).toBe(
        name === 'local' ? undefined : 1,
      );
    }
    expect(ofType('AWS::Lambda::LayerVersion').length).toBe(name === 'local' ? 0 : 2);
  });

  it('every target of a rule says its retries and has a dead-letter queue', () => {
    const rules = ofType('AWS::Events::Rule');
    expect(rules.length).toBe(2);
    for (const rule of rules) {
      for (const target of rule.Properties.Targets) {
        expect(target.RetryPolicy.MaximumRetryAttempts, rule.id).toBeGreaterThan(0);
        expect(target.RetryPolicy.MaximumEventAgeInSeconds, rule.id).toBeGreaterThan(0);
        expect(target.DeadLetterConfig.Arn, rule.id).toBeDefined();
      }
    }
  });

  it('all events of Granary go to the deliveries queue, tried for 24 hours', () => {
    const rule = synthesised.one('AWS::Events::Rule', 'AllEvents');
    expect(rule.Properties.EventPattern).toEqual({ source: ['granary'] });
    expect(rule.Properties.Targets[0].RetryPolicy).toEqual({
      MaximumEventAgeInSeconds: 86_400,
      MaximumRetryAttempts: 185,
    });
  });

  it('the relay sees new outbox rows only, loses none on a failure, and starts at the oldest', () => {
    const { Properties } = synthesised.one('AWS::Lambda::EventSourceMapping', 'Relay');
    expect(Properties.FilterCriteria.Filters.map((f: { Pattern: string }) => JSON.parse(f.Pattern))).toEqual([
      { eventName: ['INSERT'], dynamodb: { Keys: { pk: { S: [{ prefix: 'OUTBOX#' }] } } } },
    ]);
    expect(Properties.StartingPosition).toBe('TRIM_HORIZON');
    expect(Properties.BisectBatchOnFunctionError).toBe(true);
    expect(Properties.FunctionResponseTypes).toEqual(['ReportBatchItemFailures']);
    expect(Properties.DestinationConfig.OnFailure.Destination).toBeDefined();
  });

  it('the only function that is called asynchronously has a failure destination', () => {
    const configured = ofType('AWS::Lambda::EventInvokeConfig');
    expect(configured.length).toBe(1);
    expect(configured[0]!.Properties.FunctionName.Ref).toBe(functionOf(synthesised, 'sweep').id);
    expect(configured[0]!.Properties.DestinationConfig.OnFailure.Destination).toBeDefined();
    const callers = ofType('AWS::Lambda::Permission').map(({ Properties }) => Properties.Principal);
    expect(callers.sort()).toEqual([
      'apigateway.amazonaws.com',
      'apigateway.amazonaws.com',
      'apigateway.amazonaws.com',
      'events.amazonaws.com',
    ]);
  });

  it('has no custom resource and, but for the bus that CloudFormation makes us name, no physical names', () => {
    expect(synthesised.resources.filter(({ Type }) => custom.test(Type))).toEqual([]);
    const nameOf: Record<string, string> = {
      'AWS::DynamoDB::Table': 'TableName',
      'AWS::S3::Bucket': 'BucketName',
      'AWS::SQS::Queue': 'QueueName',
      'AWS::Lambda::Function': 'FunctionName',
      'AWS::IAM::Role': 'RoleName',
      'AWS::StepFunctions::StateMachine': 'StateMachineName',
      'AWS::SecretsManager::Secret': 'Name',
      'AWS::Logs::LogGroup': 'LogGroupName',
    };
    const named = synthesised.resources.filter(
      ({ Type, Properties }) => Properties[nameOf[Type] ?? ''] !== undefined,
    );
    expect(named.map(({ id }) => id)).toEqual([]);
  });

  it('secrets are generated, never written into a template', () => {
    const secrets = ofType('AWS::SecretsManager::Secret');
    expect(secrets.map(({ id }) => id.replace(/[0-9A-F]{8}$/, '')).sort()).toEqual(['Bootstrap', 'Pepper']);
    for (const { Properties } of secrets) {
      expect(Properties.SecretString).toBeUndefined();
      expect(Properties.GenerateSecretString.PasswordLength).toBeGreaterThanOrEqual(48);
    }
  });

  it('asks no account while it is synthesised', () => {
    for (const stack of Object.values(synthesised.stacks)) {
      expect(stack.environment).toBe('aws://unknown-account/unknown-region');
    }
  });

  it('says in its outputs where everything is', () => {
    const outputs = Object.values(synthesised.templates).flatMap((template) =>
      Object.keys((template.Outputs ?? {}) as object),
    );
    expect(outputs).toEqual(
      expect.arrayContaining([
        'RestApiId',
        'ApiUrl',
        'TableName',
        'BlobBucketName',
        'ArchiveBucketName',
        'IndexBucketName',
        'BusName',
        'PepperSecretName',
        'BootstrapSecretName',
        'BatchWorkflowArn',
        'ClusterWorkflowArn',
        'TaxonomyWorkflowArn',
        'NamespaceWorkflowArn',
        'JobsQueueUrl',
        'IndexJobsQueueUrl',
        'DeliveriesQueueUrl',
        'ApiFunctionName',
        'QueryFunctionName',
        'RunnerFunctionName',
      ]),
    );
  });

  it('stays below 800 kB in each template', () => {
    // As it is uploaded: indentation counts.
    for (const { stackName, templateFullPath } of Stage.of(synthesised.stacks.api)!.synth().stacks) {
      expect(statSync(templateFullPath).size, stackName).toBeLessThan(800_000);
    }
  });
});

describe('a new AWS account', () => {
  it('can take the stage dev: memory up to 3,008 MB and nothing reserved', () => {
    for (const { id, Properties } of stage('dev').ofType('AWS::Lambda::Function')) {
      expect(Properties.MemorySize, id).toBeLessThanOrEqual(3008);
      expect(Properties.ReservedConcurrentExecutions, id).toBeUndefined();
    }
  });

  it('is told by prod what it needs: some concurrency is reserved for requests', () => {
    expect(functionOf(stage('prod'), 'api').Properties.ReservedConcurrentExecutions).toBeGreaterThan(0);
  });
});

describe('observation on AWS', () => {
  const synthesised = stage('prod');
  const alarms = synthesised.ofType('AWS::CloudWatch::Alarm');
  const metricsOf = (alarm: Resource) => JSON.stringify(alarm.Properties);

  it('rings when anything is in any dead-letter queue', () => {
    const { Outputs } = synthesised.templates.observability as { Outputs?: object };
    expect(Outputs).toBeUndefined();
    const deadLetters = synthesised
      .ofType('AWS::SQS::Queue')
      .filter(({ Properties }) => !Properties.RedrivePolicy)
      .map(({ id }) => id);
    expect(deadLetters.length).toBe(4);
    for (const id of deadLetters) {
      const own = alarms.filter((alarm) => metricsOf(alarm).includes(id));
      expect(own.length, id).toBeGreaterThan(0);
      for (const alarm of own) {
        expect(alarm.Properties.Threshold).toBe(0);
        expect(alarm.Properties.ComparisonOperator).toBe('GreaterThanThreshold');
      }
    }
  });

  it('rings when a batch workflow fails, and has one dashboard', () => {
    const failed = alarms.filter((alarm) => metricsOf(alarm).includes('"ExecutionsFailed"'));
    expect(failed.length).toBe(2);
    expect(synthesised.ofType('AWS::CloudWatch::Dashboard').length).toBe(1);
  });

  it('is left out of the local stage', () => {
    expect(stage('local').ofType('AWS::CloudWatch::Alarm')).toEqual([]);
    expect(stage('local').stacks.observability).toBeUndefined();
  });
});
