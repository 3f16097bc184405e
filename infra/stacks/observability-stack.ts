// One dashboard, and alarms for what somebody must act on.
import { Duration, Stack } from 'aws-cdk-lib';
import * as iam from 'aws-cdk-lib/aws-iam';
import * as sns from 'aws-cdk-lib/aws-sns';
import { EmailSubscription } from 'aws-cdk-lib/aws-sns-subscriptions';
import type { AlarmFactoryDefaults } from 'cdk-monitoring-constructs';
import { MonitoringFacade, noopAction, SnsAlarmActionStrategy } from 'cdk-monitoring-constructs';
import type { Construct } from 'constructs';
import { apiStageName } from '../constructs/contract-api.ts';
import type { StageSettings } from '../stage.ts';
import type { ApiStack } from './api-stack.ts';
import type { DataStack } from './data-stack.ts';
import type { DeliveryStack } from './delivery-stack.ts';
import type { ProcessingStack } from './processing-stack.ts';
import { stackProps } from './stack-props.ts';

export interface ObservabilityStackProps {
  readonly settings: StageSettings;
  readonly data: DataStack;
  readonly delivery: DeliveryStack;
  readonly processing: ProcessingStack;
  readonly api: ApiStack;
}

export class ObservabilityStack extends Stack {
  constructor(scope: Construct, id: string, props: ObservabilityStackProps) {
    super(scope, id, stackProps(id, props.settings));
    const { data, delivery, processing, api } = props;
    const monitoring = new MonitoringFacade(this, `granary-${props.settings.stage}`, {
      alarmFactoryDefaults: this.alarmDefaults(props.settings),
    });

    monitoring.addLargeHeader('Requests');
    monitoring.monitorApiGateway({
      api: api.contractApi.rest,
      apiStage: apiStageName,
      humanReadableName: 'REST API',
      alarmFriendlyName: 'Api',
      add5XXFaultRateAlarm: { Sustained: { maxErrorRate: 0.01, datapointsToAlarm: 3, evaluationPeriods: 5 } },
    });
    for (const [name, lambda] of Object.entries({
      Api: api.api,
      Query: api.query,
      Authorizer: api.authorizer,
    })) {
      monitoring.monitorLambdaFunction({
        lambdaFunction: lambda.function,
        humanReadableName: name,
        alarmFriendlyName: name,
        // Our handlers answer every error, so one that gets out is a fault of ours.
        addFaultCountAlarm: { Any: { maxErrorCount: 0 } },
        addThrottlesCountAlarm: { Any: { maxErrorCount: 0 } },
      });
    }

    monitoring.addLargeHeader('Workflows');
    for (const [name, machine] of Object.entries(processing.machines)) {
      // A run of a cluster or a taxonomy may fail for reasons of its data, and says so to whoever asked for it.
      const ours = name === 'batch' || name === 'namespace';
      monitoring.monitorStepFunction({
        stateMachine: machine,
        humanReadableName: `Workflow ${name}`,
        alarmFriendlyName: `Workflow-${name}`,
        ...(ours ? { addFailedExecutionCountAlarm: { Any: { maxErrorCount: 0 } } } : {}),
        addTimedOutExecutionCountAlarm: { Any: { maxErrorCount: 0 } },
      });
    }

    monitoring.addLargeHeader('Queues');
    const queues = {
      Jobs: processing.jobs,
      IndexJobs: processing.indexJobs,
      Deliveries: delivery.deliveries,
    };
    for (const [name, { queue, deadLetters }] of Object.entries(queues)) {
      monitoring.monitorSqsQueueWithDlq({
        queue,
        deadLetterQueue: deadLetters,
        humanReadableName: name,
        alarmFriendlyName: name,
        addQueueMaxMessageAgeAlarm: { Stuck: { maxAgeInSeconds: 3600 } },
        addDeadLetterQueueMaxSizeAlarm: { Any: { maxMessageCount: 0 } },
      });
    }
    monitoring.monitorSqsQueue({
      queue: processing.leftovers,
      humanReadableName: 'Leftovers of relay and sweep',
      alarmFriendlyName: 'Leftovers',
      addQueueMaxSizeAlarm: { Any: { maxMessageCount: 0 } },
    });
    monitoring.monitorLambdaFunction({
      lambdaFunction: processing.relay.function,
      humanReadableName: 'Relay',
      alarmFriendlyName: 'Relay',
      addMaxIteratorAgeAlarm: { Behind: { maxAgeInMillis: Duration.minutes(5).toMilliseconds() } },
    });
    const repeating = { Sweep: processing.sweep, Compact: processing.compact, Deliver: delivery.deliver };
    for (const [name, lambda] of Object.entries(repeating)) {
      monitoring.monitorLambdaFunction({
        lambdaFunction: lambda.function,
        humanReadableName: name,
        alarmFriendlyName: name,
        addFaultCountAlarm: { Repeated: { maxErrorCount: 3, period: Duration.minutes(15) } },
      });
    }

    monitoring.addLargeHeader('Table');
    monitoring.monitorDynamoTable({
      table: data.table,
      humanReadableName: 'Table',
      alarmFriendlyName: 'Table',
      addSystemErrorCountAlarm: { Any: { maxErrorCount: 5 } },
    });
  }

  private alarmDefaults(settings: StageSettings): AlarmFactoryDefaults {
    const defaults = { alarmNamePrefix: `granary-${settings.stage}`, actionsEnabled: true };
    if (settings.alarmEmail === undefined) return { ...defaults, action: noopAction() };
    const topic = new sns.Topic(this, 'Alarms', { enforceSSL: true });
    topic.addToResourcePolicy(
      new iam.PolicyStatement({
        principals: [new iam.ServicePrincipal('cloudwatch.amazonaws.com')],
        actions: ['sns:Publish'],
        resources: [topic.topicArn],
        conditions: { StringEquals: { 'aws:SourceAccount': this.account } },
      }),
    );
    topic.addSubscription(new EmailSubscription(settings.alarmEmail));
    return { ...defaults, action: new SnsAlarmActionStrategy({ onAlarmTopic: topic }) };
  }
}
