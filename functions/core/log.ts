// Structured logs by Powertools: one JSON line each, with the request id and the function's own facts.
import { Logger } from '@aws-lambda-powertools/logger';
import type { Log } from './ports.ts';

/** @param service the Lambda's folder name. */
export function makeLog(service: string): Log {
  const logger = new Logger({ serviceName: `granary-${service}` });
  return {
    info: (message, fields = {}) => logger.info(message, fields),
    warn: (message, fields = {}) => logger.warn(message, fields),
    error: (message, fields = {}) => logger.error(message, fields),
  };
}
