// What each role may do. The emulator evaluates no policies, so these assertions are the only proof before AWS.
import { describe, expect, it } from 'vitest';
import { stageSettings } from '../../infra/stage.ts';
import { functionIds, functionOf, roleOf, stage, statementsOf } from './synthesised.ts';

const synthesised = stage('prod');
type Folder = keyof typeof functionIds;
const folders = Object.keys(functionIds) as Folder[];

function actionsOf(folder: Folder): string[] {
  return statementsOf(synthesised, roleOf(synthesised, functionOf(synthesised, folder)))
    .flatMap(({ Action }) => Action)
    .sort();
}

/** Actions on resources whose rendered reference mentions `part`. */
function actionsOn(folder: Folder, part: string): string[] {
  return statementsOf(synthesised, roleOf(synthesised, functionOf(synthesised, folder)))
    .filter(({ Resource }) => JSON.stringify(Resource).includes(part))
    .flatMap(({ Action }) => Action)
    .sort();
}

const writesLogs = ['logs:CreateLogStream', 'logs:PutLogEvents'];
const traces = ['xray:PutTelemetryRecords', 'xray:PutTraceSegments'];
const table = 'TableCD117FA1';

/** What may have no resource to name. */
const unnamed = [
  'xray:PutTraceSegments',
  'xray:PutTelemetryRecords',
  'xray:GetSamplingRules',
  'xray:GetSamplingTargets',
  'logs:CreateLogDelivery',
  'logs:GetLogDelivery',
  'logs:UpdateLogDelivery',
  'logs:DeleteLogDelivery',
  'logs:ListLogDeliveries',
  'logs:PutResourcePolicy',
  'logs:DescribeResourcePolicies',
  'logs:DescribeLogGroups',
  // Says which streams there are; reading one is allowed by name.
  'dynamodb:ListStreams',
  // The service sets up the runner's network interfaces, which have no names before; the runner's code is denied these.
  'ec2:AssignPrivateIpAddresses',
  'ec2:CreateNetworkInterface',
  'ec2:DeleteNetworkInterface',
  'ec2:DescribeNetworkInterfaces',
  'ec2:DescribeSubnets',
  'ec2:UnassignPrivateIpAddresses',
];

describe('every role', () => {
  const roles = synthesised.ofType('AWS::IAM::Role');

  it('names its actions: no wildcard, and a Scan for nobody', () => {
    expect(roles.length).toBeGreaterThan(20);
    for (const role of roles) {
      for (const { Action } of statementsOf(synthesised, role)) {
        for (const action of Action) {
          expect(action, role.id).not.toContain('*');
          expect(action, role.id).not.toBe('dynamodb:Scan');
        }
      }
    }
  });

  it('names its resources, but for traces and the delivery of logs', () => {
    for (const role of roles) {
      for (const { Action, Resource } of statementsOf(synthesised, role)) {
        if (!Resource.includes('*')) continue;
        expect(unnamed, role.id).toEqual(expect.arrayContaining([...Action]));
      }
    }
  });

  it('has no managed policy, but for the one role by which the gateway writes logs', () => {
    const managed = roles.filter(({ Properties }) => Properties.ManagedPolicyArns);
    expect(managed.length).toBe(1);
    expect(JSON.stringify(managed[0]!.Properties.ManagedPolicyArns)).toContain(
      'AmazonAPIGatewayPushToCloudWatchLogs',
    );
  });

  it('belongs to one function or machine only', () => {
    const users = [
      ...synthesised.ofType('AWS::Lambda::Function'),
      ...synthesised.ofType('AWS::StepFunctions::StateMachine'),
    ];
    const used = users.map((one) => `${one.stack}/${roleOf(synthesised, one).id}`);
    expect(new Set(used).size).toBe(used.length);
  });

  it('writes to its own log group only', () => {
    for (const folder of folders) {
      const one = functionOf(synthesised, folder);
      const group = one.Properties.LoggingConfig.LogGroup.Ref;
      const statements = statementsOf(synthesised, roleOf(synthesised, one)).filter(({ Action }) =>
        Action.includes('logs:PutLogEvents'),
      );
      expect(statements.map(({ Resource }) => Resource)).toEqual([[{ 'Fn::GetAtt': [group, 'Arn'] }]]);
    }
  });
});

describe('Python functions', () => {
  it.each(['plugin-validator', 'clusterer'] as const)('%s may write its logs and nothing else', (folder) => {
    expect(actionsOf(folder)).toEqual(writesLogs);
    expect(functionOf(synthesised, folder).Properties.Environment).toBeUndefined();
  });

  it('plugin-runner may write its logs and nothing else; what its network needs is denied to its code', () => {
    const runner = functionOf(synthesised, 'plugin-runner');
    const statements = statementsOf(synthesised, roleOf(synthesised, runner));
    const denied = new Set(
      statements.filter(({ Effect }) => Effect === 'Deny').flatMap(({ Action }) => Action),
    );
    expect(actionsOf('plugin-runner').filter((action) => !denied.has(action))).toEqual(writesLogs);
    for (const action of denied) expect(action).toMatch(/^ec2:/);
    expect(runner.Properties.Environment).toBeUndefined();
  });
});

describe('the runner in an isolated network', () => {
  const isolated = synthesised;

  it('is where every stage on AWS puts it unless its settings say otherwise', () => {
    for (const name of ['dev', 'prod']) expect(stageSettings(name).runnerNetwork, name).toBe('isolated');
  });

  it('denies its own code the rights that the service needs to set up the network', () => {
    const runner = functionOf(isolated, 'plugin-runner');
    const statements = statementsOf(isolated, roleOf(isolated, runner));
    const denied = statements.filter(({ Effect }) => Effect === 'Deny');
    const allowed = statements.filter(
      ({ Effect, Action }) => Effect === 'Allow' && !Action.includes('logs:PutLogEvents'),
    );
    expect(denied.length).toBe(1);
    expect(denied[0]!.Condition).toEqual({
      ArnLike: { 'lambda:SourceFunctionArn': { 'Fn::GetAtt': [runner.id, 'Arn'] } },
    });
    expect(denied[0]!.Action).toEqual(allowed.flatMap(({ Action }) => Action));
    for (const { Action } of allowed) for (const action of Action) expect(action).toMatch(/^ec2:/);
  });

  it('has no way out but the gateway endpoint of S3', () => {
    for (const type of ['AWS::EC2::InternetGateway', 'AWS::EC2::NatGateway', 'AWS::EC2::Route']) {
      expect(isolated.ofType(type), type).toEqual([]);
    }
    const endpoints = isolated.ofType('AWS::EC2::VPCEndpoint');
    expect(endpoints.length).toBe(1);
    expect(endpoints[0]!.Properties.VpcEndpointType).toBe('Gateway');
    const [group] = isolated.ofType('AWS::EC2::SecurityGroup');
    expect(group!.Properties.SecurityGroupEgress).toEqual([
      expect.objectContaining({ FromPort: 443, ToPort: 443 }),
    ]);
    expect(functionOf(isolated, 'plugin-runner').Properties.VpcConfig.SubnetIds.length).toBe(2);
  });
});

describe('the table', () => {
  it('is only read by the authorizer, one item at a time', () => {
    expect(actionsOn('authorizer', table)).toEqual(['dynamodb:GetItem']);
  });

  it('loses relayed rows to the relay, which reads the stream and nothing else', () => {
    const actions = actionsOf('relay').filter((action) => action.startsWith('dynamodb:'));
    expect(actions).toEqual([
      'dynamodb:DeleteItem',
      'dynamodb:DescribeStream',
      'dynamodb:GetRecords',
      'dynamodb:GetShardIterator',
      'dynamodb:ListStreams',
    ]);
  });

  it('gets single writes from queries, and no bulk ones', () => {
    expect(actionsOn('query', table)).toEqual([
      'dynamodb:BatchGetItem',
      'dynamodb:ConditionCheckItem',
      'dynamodb:DeleteItem',
      'dynamodb:GetItem',
      'dynamodb:PutItem',
      'dynamodb:Query',
      'dynamodb:UpdateItem',
    ]);
  });

  it('has an index of due rows that the sweeper alone reads', () => {
    for (const folder of folders) {
      const reads = statementsOf(synthesised, roleOf(synthesised, functionOf(synthesised, folder))).some(
        ({ Resource }) => JSON.stringify(Resource).includes('/index/due'),
      );
      expect(reads, folder).toBe(folder === 'sweep');
    }
  });
});

describe('buckets', () => {
  const who = (action: string, bucket: string) =>
    folders.filter((folder) => actionsOn(folder, bucket).includes(action));

  it('the index is written where vectors are made or changed, and deleted from where collections are deleted or tidied', () => {
    expect(who('s3:PutObject', 'IndexB66857D0')).toEqual([]);
    expect(who('s3:PutObject', 'GetAttIndex')).toEqual([
      'api',
      'batch',
      'chunk',
      'taxonomy',
      'cluster',
      'compact',
    ]);
    expect(who('s3:DeleteObject', 'GetAttIndex')).toEqual(['api', 'batch', 'namespace', 'compact']);
  });

  it('archives are written by the API alone', () => {
    expect(who('s3:PutObject', 'GetAttArchives')).toEqual(['api']);
    expect(who('s3:DeleteObject', 'GetAttArchives')).toEqual(['api', 'namespace']);
  });

  it('whoever reads objects may list too, so that a missing one is a 404', () => {
    for (const folder of folders) {
      for (const bucket of ['GetAttBlobs', 'GetAttArchives', 'GetAttIndex']) {
        const actions = actionsOn(folder, bucket);
        expect(actions.includes('s3:GetObject'), `${folder} ${bucket}`).toBe(
          actions.includes('s3:ListBucket'),
        );
      }
    }
  });
});

describe('secrets', () => {
  it('the pepper is read where keys, cursors and secrets of users are, the bootstrap secret by the authorizer alone', () => {
    const who = (part: string) =>
      folders.filter((folder) => actionsOn(folder, part).includes('secretsmanager:GetSecretValue'));
    expect(who('Pepper')).toEqual(['api', 'query', 'authorizer', 'chunk', 'taxonomy', 'alert', 'deliver']);
    expect(who('Bootstrap')).toEqual(['authorizer']);
  });
});

describe('calls', () => {
  const who = (part: string) =>
    folders.filter((folder) => actionsOn(folder, part).includes('lambda:InvokeFunction'));

  it('plugins are run for chunks, queries, taxonomies, alerts and deployments, and validated by the API', () => {
    expect(who('PluginRunner')).toEqual(['api', 'query', 'chunk', 'taxonomy', 'alert']);
    expect(who('PluginValidator')).toEqual(['api']);
  });

  it('workflows are started by the starter alone, each of the four', () => {
    const starts = folders.filter((folder) => actionsOf(folder).includes('states:StartExecution'));
    expect(starts).toEqual(['starter']);
    const statement = statementsOf(synthesised, roleOf(synthesised, functionOf(synthesised, 'starter'))).find(
      ({ Action }) => Action.includes('states:StartExecution'),
    )!;
    expect(statement.Resource.length).toBe(4);
  });

  it('a workflow may call the Lambdas that its definition names, and no other', () => {
    for (const machine of synthesised.ofType('AWS::StepFunctions::StateMachine')) {
      const named = new Set(
        [
          ...JSON.stringify(machine.Properties.DefinitionString).matchAll(
            /"Fn::GetAtt":\["([A-Za-z0-9]+)","Arn"\]/g,
          ),
        ].map((m) => m[1]),
      );
      const allowed = statementsOf(synthesised, roleOf(synthesised, machine))
        .filter(({ Action }) => Action.includes('lambda:InvokeFunction'))
        .flatMap(({ Resource }) => Resource as { 'Fn::GetAtt': [string, string] }[])
        .map((resource) => resource['Fn::GetAtt'][0]);
      expect(new Set(allowed), machine.id).toEqual(named);
    }
  });

  it('traced functions have the two actions of traces', () => {
    for (const folder of folders) {
      const traced = functionOf(synthesised, folder).Properties.TracingConfig !== undefined;
      expect(
        actionsOf(folder).filter((action) => action.startsWith('xray:')),
        folder,
      ).toEqual(traced ? traces : []);
    }
  });
});
