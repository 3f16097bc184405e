// Sending to a queue.
import { SendMessageCommand, SQSClient } from '@aws-sdk/client-sqs';
import { toAppError } from './faults.ts';

export interface Queue {
  /** @param delaySeconds 0..900; the service allows no longer wait. */
  send(body: unknown, delaySeconds?: number): Promise<void>;
}

export function sqsQueue(url: string, client: SQSClient = new SQSClient({})): Queue {
  return {
    async send(body, delaySeconds = 0) {
      try {
        await client.send(
          new SendMessageCommand({
            QueueUrl: url,
            MessageBody: JSON.stringify(body),
            DelaySeconds: delaySeconds,
          }),
        );
      } catch (error) {
        throw toAppError(error);
      }
    },
  };
}
