// The findings of cdk-nag that stay, each with its reason. Whatever is not in this file fails the synth.
import { Validations } from 'aws-cdk-lib';
import type { IConstruct } from 'constructs';
import type { PythonFunction } from './constructs/python-function.ts';
import { runnersOf } from './constructs/runners.ts';
import type { TypeScriptFunction } from './constructs/typescript-function.ts';
import type { GranaryStacks } from './stacks/granary-stacks.ts';
import type { StageSettings } from './stage.ts';

interface Acknowledgement {
  /** The rule, as the finding names it; `granary-<stage>` stands for the name of the stage's stacks. */
  readonly id: string;
  readonly reason: string;
  readonly on: readonly IConstruct[];
}

/** Finding of a bucket's objects, seen from another stack. */
const objectsOf = {
  blobs: 'AwsSolutions-IAM5[Resource::granary-<stage>-data:ExportsOutputFnGetAttBlobsF0F01DC6Arn220BCD82/*]',
  archives:
    'AwsSolutions-IAM5[Resource::granary-<stage>-data:ExportsOutputFnGetAttArchives51DD1BB3Arn090B7FEE/*]',
  index: 'AwsSolutions-IAM5[Resource::granary-<stage>-data:ExportsOutputFnGetAttIndex4A79713BArnB66857D0/*]',
};

const oneTenantPerKey =
  'Keys of objects begin with the tenant, and tenants share the Lambda: the one key builder keeps them apart. The ' +
  'actions are named one by one.';

const execution = (machine: string, separator: string) =>
  `AwsSolutions-IAM5[Resource::arn:<AWS::Partition>:states:<AWS::Region>:<AWS::AccountId>:execution:<${machine}.Name>${separator}*]`;

export function acknowledgements(stacks: GranaryStacks, settings: StageSettings): readonly Acknowledgement[] {
  const { data, delivery, processing, api, observability } = stacks;
  const { batch, chunk, taxonomy, alert, cluster, namespace } = processing.steps;
  const { relay, starter, compact, sweep, validator, runners, clusterer } = processing;
  const isolated = [runners.standard, runners.large].filter((runner) => runner !== undefined);
  const traced: readonly TypeScriptFunction[] = [
    ...Object.values(processing.steps),
    relay,
    starter,
    compact,
    sweep,
    ...processing.scanners,
    delivery.deliver,
    api.api,
    api.query,
    api.authorizer,
  ] as readonly TypeScriptFunction[];
  const python: readonly PythonFunction[] = [validator, ...runnersOf(runners), clusterer];
  const machines = Object.values(processing.machines);
  const machineRoles = machines.map((machine) => machine.node.scope!);
  const roles = (...functions: readonly { readonly role: IConstruct }[]) => functions.map(({ role }) => role);
  const functions = [...traced, ...python].map((one) => one.function);

  return [
    {
      id: 'AwsSolutions-IAM5[Resource::*]',
      reason:
        'Sending traces (and, for state machines, setting up the delivery of logs) has no resource to name.',
      on: [...roles(...traced), ...machineRoles],
    },
    {
      id: objectsOf.blobs,
      reason: oneTenantPerKey,
      on: roles(
        batch,
        chunk,
        taxonomy,
        alert,
        cluster,
        namespace,
        compact,
        sweep,
        delivery.deliver,
        api.api,
        api.query,
      ),
    },
    {
      id: objectsOf.archives,
      reason: oneTenantPerKey,
      on: roles(batch, chunk, taxonomy, alert, namespace, sweep, api.api, api.query),
    },
    {
      id: objectsOf.index,
      reason: oneTenantPerKey,
      on: roles(
        batch,
        chunk,
        taxonomy,
        alert,
        cluster,
        namespace,
        compact,
        sweep,
        ...processing.scanners,
        api.api,
        api.query,
      ),
    },
    {
      id: objectsOf.blobs.replace('/*]', '/batches/*]'),
      reason: 'The list of chunks that a distributed map reads has the id of the batch in its key.',
      on: machineRoles,
    },
    {
      id: execution('ClusterWorkflowMachineB5043FA5', ':'),
      reason: 'A nested execution is waited for and stopped; its name is the id of the run.',
      on: machineRoles,
    },
    ...[':', '/'].map((separator) => ({
      id: execution('BatchWorkflowMachineC9F00E62', separator),
      reason: 'Children of a distributed map have generated names below that of their machine.',
      on: [processing],
    })),
    {
      id: 'AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/service-role/AmazonAPIGatewayPushToCloudWatchLogs]',
      reason:
        'The gateway writes the logs of all APIs of an account by one role, and this policy is made for it.',
      on: [api.contractApi],
    },
    {
      id: 'AwsSolutions-APIG2',
      reason:
        'Our own code checks every request against the contract, names all faults and wears our envelope.',
      on: [api.contractApi],
    },
    {
      id: 'AwsSolutions-APIG3',
      reason:
        'A firewall costs a fixed sum a month; keys, throttling and size limits are there without. The README says how to add one.',
      on: [api.contractApi],
    },
    {
      id: 'AwsSolutions-SF1',
      reason:
        'Errors are logged. Every event of every execution is in its own history; the copy would cost more than the run.',
      on: machines,
    },
    {
      id: 'AwsSolutions-SMG4',
      reason:
        'A new pepper would invalidate every API key at once. The bootstrap secret can only manage keys and is replaced by hand.',
      on: [data.pepper, data.bootstrap],
    },
    {
      id: 'AwsSolutions-SQS3',
      reason: 'This is a dead-letter queue: of an event source mapping, an asynchronous call and a timer.',
      on: [processing.leftovers],
    },
    {
      id: 'Serverless-SQSRedrivePolicy',
      reason: 'These are dead-letter queues.',
      on: [
        processing.leftovers,
        processing.jobs.deadLetters,
        processing.indexJobs.deadLetters,
        delivery.deliveries.deadLetters,
      ],
    },
    {
      id: 'Serverless-LambdaDLQ',
      reason:
        'Called synchronously, or by a queue or stream with its own dead letters; the sweeper has a failure destination.',
      on: functions,
    },
    {
      id: 'Serverless-LambdaEventSourceMappingDestination',
      reason: 'A queue has no failure destination: its redrive policy moves what failed five times.',
      on: [starter, compact, delivery.deliver],
    },
    ...['AwsSolutions-L1', 'Serverless-LambdaLatestVersion'].map((id) => ({
      id,
      reason:
        'Python 3.13 is what the layers and the wheels of users are built for; 3.14 has not got all of them.',
      on: python,
    })),
    {
      id: 'Serverless-LambdaTracing',
      reason:
        'Traces need a right, and these roles have none but to write their own logs. The caller is traced.',
      on: python,
    },
    ...(data.vectors
      ? [
          {
            id: 'AwsSolutions-IAM5[Resource::granary-<stage>-data:ExportsOutputFnGetAttVectorsVectorBucketArn09F358C4/index/*]',
            reason: 'Each feature of each collection has an index of its own, made while the system runs.',
            on: roles(api.query, taxonomy, alert, namespace, compact),
          },
        ]
      : []),
    ...(processing.lance
      ? [
          {
            id: objectsOf.index.replace('/*]', '/*/lance/*]'),
            reason: 'Each namespace has a folder of its own for LanceDB, whose files have generated names.',
            on: [processing.lance.role],
          },
          {
            id: 'AwsSolutions-IAM5[Resource::*]',
            reason: 'Sending traces has no resource to name.',
            on: [processing.lance.role],
          },
          {
            id: 'Serverless-LambdaDLQ',
            reason: 'It is called synchronously only, so a failure is the answer of the call.',
            on: [processing.lance.function],
          },
        ]
      : []),
    ...(observability && settings.alarmEmail !== undefined
      ? [
          {
            id: 'Serverless-SNSRedrivePolicy',
            reason: 'An alarm whose e-mail is lost still shows in CloudWatch and on the dashboard.',
            on: [observability],
          },
        ]
      : []),
    ...(processing.imageRunner
      ? [
          {
            id: 'AwsSolutions-IAM5[Resource::arn:<AWS::Partition>:lambda:<AWS::Region>:<AWS::AccountId>:function:granary-<stage>-image-*]',
            reason:
              'Each plugin in an image has a function of its own, made while the system runs; the names begin so, and no other ones do.',
            on: roles(chunk, taxonomy, alert, namespace, api.api, api.query),
          },
          {
            id: 'AwsSolutions-IAM5[Resource::arn:<AWS::Partition>:ecr:<AWS::Region>:<AWS::AccountId>:repository/granary-<stage>/*]',
            reason: 'Each namespace has a repository of its own below this name, made by the operator.',
            on: roles(api.api),
          },
        ]
      : []),
    ...(settings.runnerNetwork === 'isolated'
      ? [
          {
            id: 'AwsSolutions-IAM5[Resource::*]',
            reason:
              'Network interfaces do not exist before the service makes them; the code inside is denied these actions.',
            on: [...roles(...isolated), ...(processing.imageRunner ? [processing.imageRunner.role] : [])],
          },
          {
            id: 'AwsSolutions-VPC7',
            reason: 'The only way out of this network is the endpoint of S3, whose access the buckets log.',
            on: [processing],
          },
        ]
      : []),
  ];
}

export function acknowledge(stacks: GranaryStacks, settings: StageSettings): void {
  for (const { id, reason, on } of acknowledgements(stacks, settings)) {
    const named = id.replace('granary-<stage>', `granary-${settings.stage}`);
    for (const construct of on)
      Validations.of(construct).acknowledge({ id: `${named.split('-')[0]}::${named}`, reason });
  }
}
