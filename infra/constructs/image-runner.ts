// What plugins in container images of their own need: a role that may write logs, and the rights to make such functions.
import { RemovalPolicy, Stack } from 'aws-cdk-lib';
import * as ec2 from 'aws-cdk-lib/aws-ec2';
import * as iam from 'aws-cdk-lib/aws-iam';
import * as logs from 'aws-cdk-lib/aws-logs';
import { Construct } from 'constructs';
import type { StageSettings } from '../stage.ts';
import type { IsolatedNetwork } from './isolated-network.ts';

export interface ImageRunnerProps {
  readonly settings: StageSettings;
  /** Where its functions live; outside of any network without. */
  readonly network: IsolatedNetwork | undefined;
}

/**
 * The functions themselves are made by `api` when a plugin is deployed, one for each plugin version of a namespace, so
 * tenants share none.
 */
export class ImageRunner extends Construct {
  readonly role: iam.Role;
  readonly #namePrefix: string;
  readonly #repositoryPrefix: string;
  readonly #logGroup: logs.LogGroup;
  readonly #settings: StageSettings;
  readonly #network: IsolatedNetwork | undefined;

  constructor(scope: Construct, id: string, { settings, network }: ImageRunnerProps) {
    super(scope, id);
    this.#settings = settings;
    this.#network = network;
    this.#namePrefix = `granary-${settings.stage}-image-`;
    this.#repositoryPrefix = `granary-${settings.stage}/`;
    this.#logGroup = new logs.LogGroup(this, 'Logs', {
      retention: settings.logRetentionDays,
      removalPolicy: RemovalPolicy.DESTROY,
    });
    this.role = new iam.Role(this, 'Role', { assumedBy: new iam.ServicePrincipal('lambda.amazonaws.com') });
    this.role.addToPolicy(
      new iam.PolicyStatement({
        actions: ['logs:CreateLogStream', 'logs:PutLogEvents'],
        resources: [this.#logGroup.logGroupArn],
      }),
    );
    network?.keepFromCode(this, this.role, this.functionArns);
  }

  /** Every function that is made of an image, and no other one. */
  get functionArns(): string {
    const { partition, region, account } = Stack.of(this);
    return `arn:${partition}:lambda:${region}:${account}:function:${this.#namePrefix}*`;
  }

  /** What `core/aws/image-functions.ts` reads. */
  environmentValue(): object {
    const { region, account, urlSuffix } = Stack.of(this);
    const network = this.#network;
    return {
      name_prefix: this.#namePrefix,
      role: this.role.roleArn,
      log_group: this.#logGroup.logGroupName,
      log_level: this.#settings.logLevel,
      repositories: `${account}.dkr.ecr.${region}.${urlSuffix}/${this.#repositoryPrefix}`,
      timeout_seconds: this.#settings.sizing['plugin-runner'].timeoutSeconds,
      subnets: network?.vpc.selectSubnets({ subnetType: ec2.SubnetType.PRIVATE_ISOLATED }).subnetIds ?? [],
      security_groups: network ? [network.securityGroup.securityGroupId] : [],
    };
  }

  allowInvoke(role: iam.IRole): void {
    role.addToPrincipalPolicy(
      new iam.PolicyStatement({ actions: ['lambda:InvokeFunction'], resources: [this.functionArns] }),
    );
  }

  allowRemove(role: iam.IRole): void {
    role.addToPrincipalPolicy(
      new iam.PolicyStatement({ actions: ['lambda:DeleteFunction'], resources: [this.functionArns] }),
    );
  }

  /** Functions whose names begin so, with this one role, from images of our own repositories. */
  allowManage(role: iam.IRole): void {
    this.allowRemove(role);
    const { partition, region, account } = Stack.of(this);
    const statements = [
      new iam.PolicyStatement({
        actions: [
          'lambda:CreateFunction',
          'lambda:GetFunction',
          'lambda:UpdateFunctionCode',
          'lambda:UpdateFunctionConfiguration',
        ],
        resources: [this.functionArns],
      }),
      new iam.PolicyStatement({
        actions: ['iam:PassRole'],
        resources: [this.role.roleArn],
        conditions: { StringEquals: { 'iam:PassedToService': 'lambda.amazonaws.com' } },
      }),
      new iam.PolicyStatement({
        actions: ['ecr:BatchGetImage', 'ecr:GetDownloadUrlForLayer', 'ecr:GetRepositoryPolicy'],
        resources: [`arn:${partition}:ecr:${region}:${account}:repository/${this.#repositoryPrefix}*`],
      }),
    ];
    if (this.#network) {
      // Whoever puts a function into a network must be able to see it.
      statements.push(
        new iam.PolicyStatement({
          actions: ['ec2:DescribeSecurityGroups', 'ec2:DescribeSubnets', 'ec2:DescribeVpcs'],
          resources: ['*'],
        }),
      );
    }
    for (const statement of statements) role.addToPrincipalPolicy(statement);
  }
}
