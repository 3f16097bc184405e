// The REST API: contracts -> gateway document -> one resource, with the permissions that its integrations need.
import { RemovalPolicy, Stack } from 'aws-cdk-lib';
import * as apigateway from 'aws-cdk-lib/aws-apigateway';
import * as lambda from 'aws-cdk-lib/aws-lambda';
import * as logs from 'aws-cdk-lib/aws-logs';
import { Construct } from 'constructs';
import type { Route } from '../../functions/core/http/route.ts';
import type { StageSettings } from '../stage.ts';
import { gatewayDocument } from './gateway-document.ts';

/** The last part of the base URL, so that a client appends `/v1/...`. */
export const apiStageName = 'api';

export interface ContractApiProps {
  readonly settings: StageSettings;
  readonly routes: readonly Route[];
  readonly api: lambda.Function;
  readonly query: lambda.Function;
  readonly authorizer: lambda.Function;
}

export class ContractApi extends Construct {
  readonly rest: apigateway.SpecRestApi;

  constructor(scope: Construct, id: string, props: ContractApiProps) {
    super(scope, id);
    const { settings, routes, api, query, authorizer } = props;
    const stack = Stack.of(this);
    const uriOf = (one: lambda.Function) =>
      `arn:${stack.partition}:apigateway:${stack.region}:lambda:path/2015-03-31/functions/${one.functionArn}/invocations`;

    this.rest = new apigateway.SpecRestApi(this, 'Rest', {
      restApiName: `granary-${settings.stage}`,
      description: 'Granary, made from the contracts in functions/core/resources',
      apiDefinition: apigateway.ApiDefinition.fromInline(
        gatewayDocument(routes, {
          uris: { api: uriOf(api), query: uriOf(query) },
          authorizerUri: uriOf(authorizer),
          title: `Granary ${settings.stage}`,
        }),
      ),
      endpointTypes: [apigateway.EndpointType.REGIONAL],
      deployOptions: {
        stageName: apiStageName,
        tracingEnabled: true,
        throttlingRateLimit: settings.throttling.requestsPerSecond,
        throttlingBurstLimit: settings.throttling.burst,
        ...(settings.observed ? this.logging(settings) : {}),
      },
      // The gateway of an account and region writes all its logs by one role, which other APIs may use too.
      ...(settings.observed
        ? { cloudWatchRole: true, cloudWatchRoleRemovalPolicy: RemovalPolicy.RETAIN }
        : { cloudWatchRole: false }),
    });

    for (const [name, one] of Object.entries({ Api: api, Query: query })) {
      new lambda.CfnPermission(this, `Call${name}`, {
        action: 'lambda:InvokeFunction',
        functionName: one.functionArn,
        principal: 'apigateway.amazonaws.com',
        sourceArn: this.rest.arnForExecuteApi('*', '/*', apiStageName),
      });
    }
    new lambda.CfnPermission(this, 'CallAuthorizer', {
      action: 'lambda:InvokeFunction',
      functionName: authorizer.functionArn,
      principal: 'apigateway.amazonaws.com',
      sourceArn: `arn:${stack.partition}:execute-api:${stack.region}:${stack.account}:${this.rest.restApiId}/authorizers/*`,
    });
  }

  private logging(settings: StageSettings): Partial<apigateway.StageOptions> {
    const accessLogs = new logs.LogGroup(this, 'AccessLogs', {
      retention: settings.logRetentionDays,
      removalPolicy: RemovalPolicy.DESTROY,
    });
    return {
      accessLogDestination: new apigateway.LogGroupLogDestination(accessLogs),
      // Neither query strings nor headers: they may hold what users search for.
      accessLogFormat: apigateway.AccessLogFormat.custom(
        JSON.stringify({
          request_id: '$context.requestId',
          time: '$context.requestTimeEpoch',
          method: '$context.httpMethod',
          resource: '$context.resourcePath',
          status: '$context.status',
          bytes: '$context.responseLength',
          latency_ms: '$context.responseLatency',
          integration_ms: '$context.integrationLatency',
          authorizer_ms: '$context.authorizer.latency',
          ip: '$context.identity.sourceIp',
          key: '$context.authorizer.key_id',
          error: '$context.error.responseType',
        }),
      ),
      loggingLevel: apigateway.MethodLoggingLevel.ERROR,
      dataTraceEnabled: false,
      metricsEnabled: true,
    };
  }
}
