// One turn of the removal of a namespace; its workflow calls again until nothing is left.
import middy from '@middy/core';
import { makePorts } from '../core/aws/ports.ts';
import { workflowContext } from '../core/context.ts';
import { readEnvironment } from '../core/env.ts';
import type { NamespaceJob } from '../core/resources/namespaces/workflow.ts';
import { removeNamespace } from '../core/resources/namespaces/workflow.ts';

const ports = makePorts('namespace', readEnvironment('namespace'));

export const handler = middy((event: NamespaceJob) => removeNamespace(workflowContext(ports, event), event));
