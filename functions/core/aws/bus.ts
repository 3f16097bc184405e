// Putting events on the bus.
import { EventBridgeClient, PutEventsCommand } from '@aws-sdk/client-eventbridge';
import { AppError } from '../errors.ts';
import type { GranaryEvent } from '../events.ts';
import { toAppError } from './faults.ts';

/** The `source` of every event of ours; rules match on it. */
export const eventSource = 'granary';

export interface Bus {
  put(event: GranaryEvent): Promise<void>;
}

export function eventBridge(name: string, client: EventBridgeClient = new EventBridgeClient({})): Bus {
  return {
    async put(event) {
      try {
        const answer = await client.send(
          new PutEventsCommand({
            Entries: [
              {
                EventBusName: name,
                Source: eventSource,
                DetailType: event.event_type,
                Detail: JSON.stringify(event),
              },
            ],
          }),
        );
        // The call succeeds although single entries are refused.
        const refused = answer.Entries?.find((entry) => entry.ErrorCode !== undefined);
        if (refused)
          throw new AppError('storage_unavailable', {
            internal: `bus refused ${refused.ErrorCode}: ${refused.ErrorMessage}`,
          });
      } catch (error) {
        throw toAppError(error);
      }
    },
  };
}
