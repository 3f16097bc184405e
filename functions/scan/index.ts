// The Lambda of a part of an index that is too large for the query function; several of them share it.
import { S3Blobs } from '../core/aws/s3.ts';
import { systemClock, systemRandom } from '../core/clock.ts';
import { workflowContext } from '../core/context.ts';
import { readEnvironment } from '../core/env.ts';
import { answerScan } from '../core/fan-out/answer.ts';
import type { ScanReply, ScanRequest } from '../core/fan-out/messages.ts';
import { makeLog } from '../core/log.ts';
import type { Ports } from '../core/ports.ts';

const env = readEnvironment('scan');
// A scan reads segments and nothing else: the request names the version, so not even the table is asked.
const ports = {
  index: new S3Blobs(env.INDEX_BUCKET),
  clock: systemClock,
  random: systemRandom,
  log: makeLog('scan'),
} as unknown as Ports;

export const handler = (request: ScanRequest): Promise<ScanReply> =>
  answerScan(workflowContext(ports, request), request);
