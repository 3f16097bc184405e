// What answers requests: the REST API, its authorizer, and the two Lambdas behind it.
import { CfnOutput, Stack } from 'aws-cdk-lib';
import type { Construct } from 'constructs';
import { allRoutes } from '../../functions/core/resources/contracts.ts';
import { ContractApi } from '../constructs/contract-api.ts';
import { baseEnvironment, serviceEnvironment } from '../constructs/environment.ts';
import { allowBucket, allowInvoke, allowSecret, allowTable, tableActions } from '../constructs/rights.ts';
import { TypeScriptFunction } from '../constructs/typescript-function.ts';
import { allowVectorBackends } from '../constructs/vector-backends.ts';
import type { StageSettings } from '../stage.ts';
import type { DataStack } from './data-stack.ts';
import type { ProcessingStack } from './processing-stack.ts';
import { stackProps } from './stack-props.ts';

export interface ApiStackProps {
  readonly settings: StageSettings;
  readonly data: DataStack;
  readonly processing: ProcessingStack;
}

export class ApiStack extends Stack {
  readonly api: TypeScriptFunction<'api'>;
  readonly query: TypeScriptFunction<'query'>;
  readonly authorizer: TypeScriptFunction<'authorizer'>;
  readonly contractApi: ContractApi;

  constructor(scope: Construct, id: string, { settings, data, processing }: ApiStackProps) {
    super(scope, id, stackProps(id, settings));
    const validator = processing.validator.function;
    const environment = serviceEnvironment(
      data,
      {
        runners: processing.runners,
        imageRunner: processing.imageRunner,
        validatorName: validator.functionName,
        scannerNames: processing.scanners.map((scanner) => scanner.function.functionName),
        lance: processing.lance?.function,
      },
      settings,
    );

    this.api = new TypeScriptFunction(this, 'Api', { lambda: 'api', settings, environment });
    allowTable(this.api.role, data.table, [...tableActions.read, ...tableActions.write]);
    allowBucket(this.api.role, data.blobs, 'read', 'write', 'delete');
    allowBucket(this.api.role, data.archives, 'read', 'write', 'delete');
    // Changed and deleted documents get a segment of their own.
    allowBucket(this.api.role, data.index, 'read', 'write', 'delete');
    allowInvoke(this.api.role, validator);
    processing.allowPlugins(this.api.role);
    processing.imageRunner?.allowManage(this.api.role);

    this.query = new TypeScriptFunction(this, 'Query', { lambda: 'query', settings, environment });
    // Writes are rate limits, idempotency keys (let go after a failure) and the record of an execution.
    allowTable(this.query.role, data.table, [
      ...tableActions.read,
      'dynamodb:PutItem',
      'dynamodb:UpdateItem',
      'dynamodb:DeleteItem',
      'dynamodb:ConditionCheckItem',
    ]);
    allowBucket(this.query.role, data.blobs, 'read', 'write');
    allowBucket(this.query.role, data.archives, 'read');
    allowBucket(this.query.role, data.index, 'read');
    allowVectorBackends(this.query.role, { data, lance: processing.lance?.function }, 'query');
    processing.allowPlugins(this.query.role);
    allowInvoke(this.query.role, ...processing.scanners.map((scanner) => scanner.function));

    this.authorizer = new TypeScriptFunction(this, 'Authorizer', {
      lambda: 'authorizer',
      settings,
      environment: {
        ...baseEnvironment(data, settings),
        PEPPER_SECRET: data.pepper.secretArn,
        BOOTSTRAP_SECRET: data.bootstrap.secretArn,
      },
    });
    allowTable(this.authorizer.role, data.table, tableActions.get);
    allowSecret(this.authorizer.role, data.pepper, data.bootstrap);

    this.contractApi = new ContractApi(this, 'Contract', {
      settings,
      routes: allRoutes,
      api: this.api.function,
      query: this.query.function,
      authorizer: this.authorizer.function,
    });
    const { rest } = this.contractApi;

    new CfnOutput(this, 'RestApiId', { value: rest.restApiId });
    new CfnOutput(this, 'ApiUrl', { value: rest.url.replace(/\/$/, '') });
    new CfnOutput(this, 'ApiFunctionName', { value: this.api.function.functionName });
    new CfnOutput(this, 'QueryFunctionName', { value: this.query.function.functionName });
    new CfnOutput(this, 'AuthorizerFunctionName', { value: this.authorizer.function.functionName });
  }
}
