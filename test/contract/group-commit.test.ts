// Small writes in groups over memory stores; the emulator runs the same suite over DynamoDB and S3.
import { inNamespace, makeContext } from '../../functions/core/context.ts';
import { newId } from '../../functions/core/ids.ts';
import { makeTestPorts } from '../http/app.ts';
import { groupCommitSuite } from './group-commit-suite.ts';

groupCommitSuite('memory', async () => {
  const ctx = makeContext(makeTestPorts(), { orgId: 'org_one', keyId: 'key', permissions: ['admin'] }, 'req');
  return inNamespace(ctx, newId('namespace'));
});
