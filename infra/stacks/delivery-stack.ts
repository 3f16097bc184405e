// From an event on the bus to a signed webhook: rule, queue, `deliver`.
import { CfnOutput, Duration, Stack } from 'aws-cdk-lib';
import * as events from 'aws-cdk-lib/aws-events';
import * as targets from 'aws-cdk-lib/aws-events-targets';
import { SqsEventSource } from 'aws-cdk-lib/aws-lambda-event-sources';
import type { Construct } from 'constructs';
import { baseEnvironment } from '../constructs/environment.ts';
import { QueueWithDlq } from '../constructs/queue-with-dlq.ts';
import { allowBucket, allowSecret, allowSend, allowTable, tableActions } from '../constructs/rights.ts';
import { TypeScriptFunction } from '../constructs/typescript-function.ts';
import type { StageSettings } from '../stage.ts';
import type { DataStack } from './data-stack.ts';
import { stackProps } from './stack-props.ts';

/** `source` of all events of ours. @see functions/core/aws/bus.ts */
const eventSource = 'granary';

export interface DeliveryStackProps {
  readonly settings: StageSettings;
  readonly data: DataStack;
}

export class DeliveryStack extends Stack {
  readonly deliveries: QueueWithDlq;
  readonly rule: events.Rule;
  readonly deliver: TypeScriptFunction<'deliver'>;

  constructor(scope: Construct, id: string, { settings, data }: DeliveryStackProps) {
    super(scope, id, stackProps(id, settings));
    this.deliveries = new QueueWithDlq(this, 'Deliveries', {
      consumerTimeout: Duration.seconds(settings.sizing.deliver.timeoutSeconds),
    });
    const { queue, deadLetters } = this.deliveries;

    this.rule = new events.Rule(this, 'AllEvents', {
      description: 'Every event of Granary goes to the queue of webhook deliveries',
      eventBus: data.bus,
      eventPattern: { source: [eventSource] },
    });
    this.rule.addTarget(
      // Both numbers are said, since the default differs between kinds of target and one of them is five minutes.
      new targets.SqsQueue(queue, {
        deadLetterQueue: deadLetters,
        maxEventAge: Duration.hours(24),
        retryAttempts: 185,
      }),
    );

    this.deliver = new TypeScriptFunction(this, 'Deliver', {
      lambda: 'deliver',
      settings,
      environment: {
        ...baseEnvironment(data, settings),
        BLOB_BUCKET: data.blobs.bucketName,
        PEPPER_SECRET: data.pepper.secretArn,
        ALLOW_LOOPBACK: String(settings.allowLoopback),
        DELIVERIES_QUEUE_URL: queue.queueUrl,
      },
    });
    const { role } = this.deliver;
    allowTable(role, data.table, [...tableActions.read, ...tableActions.write]);
    allowBucket(role, data.blobs, 'read', 'write');
    allowSecret(role, data.pepper);
    allowSend(role, queue);
    this.deliver.function.addEventSource(
      new SqsEventSource(queue, {
        batchSize: 10,
        reportBatchItemFailures: true,
        maxConcurrency: settings.queueConcurrency,
      }),
    );

    new CfnOutput(this, 'DeliveriesQueueUrl', { value: queue.queueUrl });
    new CfnOutput(this, 'DeliveriesDlqUrl', { value: deadLetters.queueUrl });
    new CfnOutput(this, 'DeliverFunctionName', { value: this.deliver.function.functionName });
  }
}
