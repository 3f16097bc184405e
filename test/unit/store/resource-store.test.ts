// Writes whose answer was lost, and writers who meet: each is told what became of its own write, not of another's.
import { expect, it } from 'vitest';
import { bucketStore } from '../../../functions/core/resources/buckets/store.ts';
import { createKey, getKey, revokeKey, rotateKey } from '../../../functions/core/resources/keys/service.ts';
import { pluginStore } from '../../../functions/core/resources/plugins/store.ts';
import type { App } from '../../http/app.ts';
import { makeApp } from '../../http/app.ts';

const plugin = (sha256: string) => ({
  id: 'embed_1_0_0',
  name: 'embed@1.0.0',
  parents: [],
  plugin_name: 'embed',
  version: '1.0.0',
  description: null,
  archive_sha256: sha256,
  archive_key: `plugins/${sha256}.zip`,
  archive_bytes: 1,
  root: '',
  features: [],
  input_mappings: {},
  compute_profile: {},
  has_realtime: false,
  deployment: 'not_deployed' as const,
  deployed_at: null,
  validation_warnings: [],
});

const bucket = {
  id: 'bkt_1',
  name: 'b',
  parents: [],
  description: null,
  bucket_schema: { properties: {} },
  metadata: {},
};

/** Applies the next transaction twice, as a client does whose first answer was lost. */
function loseNextAnswer({ ports }: App): void {
  const { table } = ports;
  const write = table.write.bind(table);
  table.write = async (writes, token) => {
    table.write = write;
    await write(writes, token);
    return write(writes, token);
  };
}

it('of two writers of one derived id with other content one is refused', async () => {
  const { ctx } = await makeApp();
  const both = await Promise.allSettled(['a', 'b'].map((sha) => pluginStore.create(ctx, plugin(sha))));
  const kept = await pluginStore.get(ctx, 'embed_1_0_0');
  const made = both.filter((one) => one.status === 'fulfilled').map((one) => one.value.archive_sha256);
  expect(made).toEqual([kept.archive_sha256]);
  expect(both.find((one) => one.status === 'rejected')?.reason).toMatchObject({ code: 'plugin_name_taken' });
});

it('a create and an update whose answer was lost are successes', async () => {
  const app = await makeApp();
  loseNextAnswer(app);
  const made = await bucketStore.create(app.ctx, bucket as never);
  loseNextAnswer(app);
  const after = await bucketStore.update(app.ctx, made, { name: 'c' });
  expect(await bucketStore.get(app.ctx, 'c')).toEqual(after);
});

it('an update over a version that somebody else has changed is refused', async () => {
  const { ctx } = await makeApp();
  const made = await bucketStore.create(ctx, bucket as never);
  await bucketStore.update(ctx, made, { description: 'first' });
  await expect(bucketStore.update(ctx, made, { description: 'second' })).rejects.toMatchObject({
    code: 'bucket_changed',
  });
});

it('a key that is revoked while it is rotated has no successor', async () => {
  const { ctx } = await makeApp();
  const { key } = await createKey(ctx, { name: 'k', permissions: ['read'] });
  const { settings } = ctx.ports;
  // The pepper is the last thing that a rotation waits for before it writes.
  const late = {
    ...ctx,
    ports: {
      ...ctx.ports,
      settings: {
        ...settings,
        pepper: async () => {
          await revokeKey(ctx, key.key_id);
          return settings.pepper();
        },
      },
    },
  };
  await expect(rotateKey(late, key.key_id, 0)).rejects.toMatchObject({ code: 'key_already_revoked' });
  expect((await getKey(ctx, key.key_id)).rotated_to).toBeNull();
});
