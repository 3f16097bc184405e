// A network without a way out but the S3 gateway endpoint to our own buckets, for plugins that must not talk to anybody.

import { Stack } from 'aws-cdk-lib';
import * as ec2 from 'aws-cdk-lib/aws-ec2';
import * as iam from 'aws-cdk-lib/aws-iam';
import type * as lambda from 'aws-cdk-lib/aws-lambda';
import * as route53resolver from 'aws-cdk-lib/aws-route53resolver';
import type * as s3 from 'aws-cdk-lib/aws-s3';
import { Construct } from 'constructs';

/** What the Lambda service does in the role's name to put a function into a network. */
const interfaceActions = [
  'ec2:CreateNetworkInterface',
  'ec2:DescribeNetworkInterfaces',
  'ec2:DescribeSubnets',
  'ec2:DeleteNetworkInterface',
  'ec2:AssignPrivateIpAddresses',
  'ec2:UnassignPrivateIpAddresses',
];

export interface IsolatedNetworkProps {
  /** The buckets that presigned URLs may lead to; no other one can be reached, whoever signed for it. */
  readonly buckets: readonly s3.IBucket[];
}

export class IsolatedNetwork extends Construct {
  readonly vpc: ec2.Vpc;
  readonly securityGroup: ec2.SecurityGroup;

  constructor(scope: Construct, id: string, { buckets }: IsolatedNetworkProps) {
    super(scope, id);
    this.vpc = new ec2.Vpc(this, 'Vpc', {
      ipAddresses: ec2.IpAddresses.cidr('10.64.0.0/20'),
      maxAzs: 2,
      natGateways: 0,
      subnetConfiguration: [{ name: 'runner', subnetType: ec2.SubnetType.PRIVATE_ISOLATED, cidrMask: 22 }],
    });
    const endpoint = this.vpc.addGatewayEndpoint('S3', { service: ec2.GatewayVpcEndpointAwsService.S3 });
    // Whoever signed a URL is its principal: roles of ours, and a stranger's URL would lead to a stranger's bucket.
    endpoint.addToPolicy(
      new iam.PolicyStatement({
        principals: [new iam.AnyPrincipal()],
        actions: ['s3:GetObject', 's3:PutObject'],
        resources: buckets.map((bucket) => bucket.arnForObjects('*')),
      }),
    );
    // Archives and rows come, and results go, by presigned HTTPS URLs. The group admits the port; the routes admit S3.
    this.securityGroup = new ec2.SecurityGroup(this, 'Group', {
      vpc: this.vpc,
      description: 'Granary plugin runner: HTTPS to S3',
      allowAllOutbound: false,
    });
    this.securityGroup.addEgressRule(ec2.Peer.anyIpv4(), ec2.Port.tcp(443), 'presigned URLs of S3');
    this.answerNamesOfS3Only();
  }

  /** Without this a plugin could tell things to a name server of its own: the resolver of a network asks any. */
  private answerNamesOfS3Only(): void {
    const { region, urlSuffix } = Stack.of(this);
    const domains = (id: string, names: string[]) =>
      new route53resolver.CfnFirewallDomainList(this, id, { domains: names }).attrId;
    const rules = new route53resolver.CfnFirewallRuleGroup(this, 'Names', {
      firewallRules: [
        {
          priority: 1,
          action: 'ALLOW',
          firewallDomainListId: domains('S3Names', [
            `s3.${region}.${urlSuffix}`,
            `*.s3.${region}.${urlSuffix}`,
          ]),
          // Names of buckets are aliases of names that S3 changes.
          firewallDomainRedirectionAction: 'TRUST_REDIRECTION_DOMAIN',
        },
        {
          priority: 2,
          action: 'BLOCK',
          blockResponse: 'NXDOMAIN',
          firewallDomainListId: domains('AllNames', ['*']),
        },
      ],
    });
    new route53resolver.CfnFirewallRuleGroupAssociation(this, 'NamesHere', {
      firewallRuleGroupId: rules.attrId,
      vpcId: this.vpc.vpcId,
      // The service keeps what is below 101 and above 9,899 for itself.
      priority: 101,
    });
  }

  functionProps(): Partial<lambda.FunctionProps> {
    return {
      vpc: this.vpc,
      vpcSubnets: { subnetType: ec2.SubnetType.PRIVATE_ISOLATED },
      securityGroups: [this.securityGroup],
    };
  }

  /**
   * Gives the role the interface actions, and denies them to what runs inside its functions.
   *
   * @param scope of the policy that denies: the function waits for the policies of its role, and this one names it
   * @param functionArn of the functions of the role; may end in `*`
   */
  keepFromCode(scope: Construct, role: iam.Role, functionArn: string): void {
    role.addToPolicy(new iam.PolicyStatement({ actions: interfaceActions, resources: ['*'] }));
    new iam.Policy(scope, 'NotForCode', {
      roles: [role],
      statements: [
        new iam.PolicyStatement({
          effect: iam.Effect.DENY,
          actions: interfaceActions,
          resources: ['*'],
          conditions: { ArnLike: { 'lambda:SourceFunctionArn': functionArn } },
        }),
      ],
    });
  }
}
