// Starting a workflow under a name, so that a second start of the same work is no second run.
import { SFNClient, StartExecutionCommand } from '@aws-sdk/client-sfn';
import { toAppError } from './faults.ts';

export interface Workflows {
  /** Safe to repeat: an execution that exists already under this name is success. */
  start(machineArn: string, name: string, input: unknown): Promise<void>;
}

export function stepFunctions(client: SFNClient = new SFNClient({})): Workflows {
  return {
    async start(machineArn, name, input) {
      try {
        await client.send(
          new StartExecutionCommand({ stateMachineArn: machineArn, name, input: JSON.stringify(input) }),
        );
      } catch (error) {
        if ((error as Error).name === 'ExecutionAlreadyExists') return;
        throw toAppError(error);
      }
    },
  };
}
