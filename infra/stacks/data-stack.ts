// Everything that must outlive a deployment: the table, the buckets, the event bus, the secrets.
import { CfnOutput, Duration, Fn, RemovalPolicy, Stack } from 'aws-cdk-lib';
import * as dynamodb from 'aws-cdk-lib/aws-dynamodb';
import * as events from 'aws-cdk-lib/aws-events';
import * as s3 from 'aws-cdk-lib/aws-s3';
import * as s3vectors from 'aws-cdk-lib/aws-s3vectors';
import * as secretsmanager from 'aws-cdk-lib/aws-secretsmanager';
import type { Construct } from 'constructs';
import type { StageSettings } from '../stage.ts';
import { stackProps } from './stack-props.ts';

/** Name of the one index: rows with a due time, in 16 shards. */
export const dueIndex = 'due';

export class DataStack extends Stack {
  readonly table: dynamodb.Table;
  readonly blobs: s3.Bucket;
  readonly archives: s3.Bucket;
  readonly index: s3.Bucket;
  /** Copies of vectors, where the stage has S3 Vectors. */
  readonly vectors: { readonly bucketName: string; readonly bucketArn: string } | undefined;
  readonly bus: events.EventBus;
  /** Behind key hashes and cursors. */
  readonly pepper: secretsmanager.Secret;
  /** May create the first API key, and nothing else. */
  readonly bootstrap: secretsmanager.Secret;

  constructor(scope: Construct, id: string, settings: StageSettings) {
    super(scope, id, stackProps(id, settings));
    const removalPolicy = settings.keepData ? RemovalPolicy.RETAIN : RemovalPolicy.DESTROY;

    this.table = new dynamodb.Table(this, 'Table', {
      partitionKey: { name: 'pk', type: dynamodb.AttributeType.STRING },
      sortKey: { name: 'sk', type: dynamodb.AttributeType.STRING },
      billingMode: dynamodb.BillingMode.PAY_PER_REQUEST,
      // The service's own key costs nothing a month; a key of ours would protect from nobody who has this account.
      encryption: dynamodb.TableEncryption.DEFAULT,
      pointInTimeRecoverySpecification: { pointInTimeRecoveryEnabled: true },
      deletionProtection: settings.keepData,
      timeToLiveAttribute: 'expires_at',
      stream: dynamodb.StreamViewType.NEW_IMAGE,
      removalPolicy,
    });
    this.table.addGlobalSecondaryIndex({
      indexName: dueIndex,
      partitionKey: { name: 'due_pk', type: dynamodb.AttributeType.STRING },
      sortKey: { name: 'due_at', type: dynamodb.AttributeType.STRING },
      projectionType: dynamodb.ProjectionType.ALL,
    });

    const logs = settings.observed ? this.accessLogs(removalPolicy) : undefined;
    const bucket = (bucketId: string, props: Partial<s3.BucketProps>) =>
      new s3.Bucket(this, bucketId, {
        encryption: s3.BucketEncryption.S3_MANAGED,
        blockPublicAccess: s3.BlockPublicAccess.BLOCK_ALL,
        objectOwnership: s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
        enforceSSL: true,
        minimumTLSVersion: 1.2,
        removalPolicy,
        ...(logs ? { serverAccessLogsBucket: logs, serverAccessLogsPrefix: `${bucketId}/` } : {}),
        ...props,
      });
    const abandoned = { id: 'abandoned-parts', abortIncompleteMultipartUploadAfter: Duration.days(1) };
    this.blobs = bucket('Blobs', {
      lifecycleRules: [
        abandoned,
        { id: 'unconfirmed-uploads', prefix: 'uploads/', expiration: Duration.days(1) },
        // Plans, chunk files and results: a failed batch can be retried for 7 days, its failures read for longer.
        { id: 'batch-files', prefix: 'batches/', expiration: Duration.days(30) },
        // Vectors and texts that a cluster run was given; its results stay.
        { id: 'cluster-inputs', prefix: 'runinputs/', expiration: Duration.days(7) },
        { id: 'exports', prefix: 'exports/', expiration: Duration.days(7) },
        { id: 'imports', prefix: 'imports/', expiration: Duration.days(7) },
        // Images, sounds and PDF that somebody searched with, as long as the plugin reads them.
        { id: 'queries', prefix: 'queries/', expiration: Duration.days(1) },
        { id: 'idempotent-replies', prefix: 'idempotency/', expiration: Duration.days(2) },
      ],
    });
    this.archives = bucket('Archives', {
      lifecycleRules: [abandoned, { id: 'quarantine', prefix: 'uploads/', expiration: Duration.days(1) }],
    });
    this.index = bucket('Index', {
      versioned: true,
      // No rule may touch a live segment: only the sweeper knows which ones the heads still name.
      lifecycleRules: [abandoned, { id: 'deleted-segments', noncurrentVersionExpiration: Duration.days(7) }],
    });

    this.vectors = settings.s3Vectors ? this.vectorBucket() : undefined;

    // The one name we give: CloudFormation wants it, and the CDK's own would be the same for every stage.
    this.bus = new events.EventBus(this, 'Bus', { eventBusName: `granary-${settings.stage}` });

    const secret = (secretId: string, description: string) =>
      new secretsmanager.Secret(this, secretId, {
        description,
        generateSecretString: { passwordLength: 64, excludePunctuation: true },
        removalPolicy,
      });
    this.pepper = secret('Pepper', 'Granary: behind the hashes of API keys and the signatures of cursors');
    this.bootstrap = secret('Bootstrap', 'Granary: may create, list and revoke API keys, nothing else');

    new CfnOutput(this, 'TableName', { value: this.table.tableName });
    new CfnOutput(this, 'BlobBucketName', { value: this.blobs.bucketName });
    new CfnOutput(this, 'ArchiveBucketName', { value: this.archives.bucketName });
    new CfnOutput(this, 'IndexBucketName', { value: this.index.bucketName });
    if (this.vectors) new CfnOutput(this, 'VectorBucketName', { value: this.vectors.bucketName });
    new CfnOutput(this, 'BusName', { value: this.bus.eventBusName });
    // The reference is an ARN on AWS and a name on an emulator; every call that reads a secret takes both.
    new CfnOutput(this, 'PepperSecretName', { value: this.pepper.secretArn });
    new CfnOutput(this, 'BootstrapSecretName', { value: this.bootstrap.secretArn });
  }

  /**
   * Goes with the stack on every stage: what is in it are copies that a sync makes again. A bucket with indexes cannot
   * be deleted, so namespaces are deleted or moved to `segments` first.
   */
  private vectorBucket(): DataStack['vectors'] {
    const bucket = new s3vectors.CfnVectorBucket(this, 'Vectors', {
      encryptionConfiguration: { sseType: 'AES256' },
    });
    bucket.applyRemovalPolicy(RemovalPolicy.DESTROY);
    const bucketArn = bucket.attrVectorBucketArn;
    // CloudFormation makes the name and tells the ARN only: arn:aws:s3vectors:<region>:<account>:bucket/<name>.
    return { bucketArn, bucketName: Fn.select(1, Fn.split('/', bucketArn)) };
  }

  private accessLogs(removalPolicy: RemovalPolicy): s3.Bucket {
    return new s3.Bucket(this, 'AccessLogs', {
      encryption: s3.BucketEncryption.S3_MANAGED,
      blockPublicAccess: s3.BlockPublicAccess.BLOCK_ALL,
      objectOwnership: s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
      enforceSSL: true,
      minimumTLSVersion: 1.2,
      removalPolicy,
      lifecycleRules: [{ id: 'old-logs', expiration: Duration.days(90) }],
    });
  }
}
