// A network without a way out but the S3 gateway endpoint, for plugins that must not talk to anybody.

import * as ec2 from 'aws-cdk-lib/aws-ec2';
import * as iam from 'aws-cdk-lib/aws-iam';
import type * as lambda from 'aws-cdk-lib/aws-lambda';
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

export class IsolatedNetwork extends Construct {
  readonly vpc: ec2.Vpc;
  readonly securityGroup: ec2.SecurityGroup;

  constructor(scope: Construct, id: string) {
    super(scope, id);
    this.vpc = new ec2.Vpc(this, 'Vpc', {
      ipAddresses: ec2.IpAddresses.cidr('10.64.0.0/20'),
      maxAzs: 2,
      natGateways: 0,
      subnetConfiguration: [{ name: 'runner', subnetType: ec2.SubnetType.PRIVATE_ISOLATED, cidrMask: 22 }],
      gatewayEndpoints: { S3: { service: ec2.GatewayVpcEndpointAwsService.S3 } },
    });
    // Archives and rows come, and results go, by presigned HTTPS URLs. The group admits the port; the routes admit S3.
    this.securityGroup = new ec2.SecurityGroup(this, 'Group', {
      vpc: this.vpc,
      description: 'Granary plugin runner: HTTPS to S3',
      allowAllOutbound: false,
    });
    this.securityGroup.addEgressRule(ec2.Peer.anyIpv4(), ec2.Port.tcp(443), 'presigned URLs of S3');
  }

  functionProps(): Partial<lambda.FunctionProps> {
    return {
      vpc: this.vpc,
      vpcSubnets: { subnetType: ec2.SubnetType.PRIVATE_ISOLATED },
      securityGroups: [this.securityGroup],
    };
  }

  /** Gives the role the interface actions, and denies them to what runs inside the function. */
  keepFromCode(role: iam.Role, runner: lambda.Function): void {
    role.addToPolicy(new iam.PolicyStatement({ actions: interfaceActions, resources: ['*'] }));
    // A policy of its own: the function waits for the policies of its role, and this one names the function.
    new iam.Policy(this, 'NotForCode', {
      roles: [role],
      statements: [
        new iam.PolicyStatement({
          effect: iam.Effect.DENY,
          actions: interfaceActions,
          resources: ['*'],
          conditions: { ArnEquals: { 'lambda:SourceFunctionArn': runner.functionArn } },
        }),
      ],
    });
  }
}
