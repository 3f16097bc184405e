// Secrets, read once per environment and kept for five minutes.
import { GetSecretValueCommand, SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import { AppError } from '../errors.ts';
import { toAppError } from './faults.ts';

const keepMs = 300_000;

/** A function that gives the secret's text; concurrent first calls share one read. */
export function secret(
  id: string,
  client: SecretsManagerClient = new SecretsManagerClient({}),
): () => Promise<string> {
  let value: Promise<string> | undefined;
  let readAt = 0;
  return () => {
    if (!value || Date.now() - readAt > keepMs) {
      readAt = Date.now();
      value = client
        .send(new GetSecretValueCommand({ SecretId: id }))
        .then((answer) => {
          if (!answer.SecretString)
            throw new AppError('internal_error', { internal: `the secret ${id} is empty` });
          return answer.SecretString;
        })
        .catch((error: unknown) => {
          value = undefined;
          throw toAppError(error);
        });
    }
    return value;
  };
}
