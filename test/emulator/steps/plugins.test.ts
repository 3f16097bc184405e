// Steps 1 to 3 on the deployed stack: plugins are uploaded, checked without being run, deployed, versioned, deleted.
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Client, Json, Workspace } from '../stack.ts';
import {
  fixturePlugin,
  makeCollection,
  makeWorkspace,
  pluginFiles,
  uploadPlugin,
  usePlugin,
  zip,
} from '../stack.ts';

let space: Workspace;
let client: Client;
const good = pluginFiles(fixturePlugin('word_embed'));

beforeAll(async () => {
  space = await makeWorkspace('plugins');
  client = space.client;
});
afterAll(() => space?.close());

/** The plugin under another name, with changes to its files. */
function renamed(
  name: string,
  change: Readonly<Record<string, (text: string) => string | undefined>> = {},
): Record<string, string> {
  const files: Record<string, string> = {};
  for (const [path, text] of Object.entries(good)) {
    const short = path.split('/').slice(1).join('/');
    const changed = (change[short] ?? ((same: string) => same))(text.replaceAll('word_embed', name));
    if (changed !== undefined) files[`${name}/${short}`] = changed;
  }
  return files;
}

const manifest = (edit: (text: string) => string) => ({ 'manifest.py': edit });

describe('a plugin', () => {
  it('goes from upload to deployment, and says so', async () => {
    const id = await usePlugin(space);
    expect(id).toBe('word_embed_1_0_0');
    const plugin = await client.call('GET', `${space.path}/plugins/${id}`);
    expect(plugin).toMatchObject({
      plugin_id: id,
      name: 'word_embed',
      version: '1.0.0',
      deployed: true,
      deployment_status: 'batch_only',
      validation_status: 'passed',
    });
    expect(plugin.features).toEqual([
      expect.objectContaining({
        feature_name: 'word_embed_v1_embedding',
        embedding_dim: 128,
        distance_metric: 'cosine',
      }),
    ]);
    expect(await client.call('GET', `${space.path}/plugins/word_embed@1.0.0`)).toMatchObject({
      plugin_id: id,
    });
    expect(await client.call('GET', `${space.path}/plugins/${id}/status`)).toMatchObject({
      status: 'DEPLOYED',
      deployment_type: 'batch_only',
    });
    expect(
      (await client.call('GET', `${space.path}/plugins`)).plugins.map((one: Json) => one.plugin_id),
    ).toContain(id);
  });

  it('is confirmed once: repeating it changes nothing and answers the same', async () => {
    const archive = zip(renamed('twice_embed'));
    const upload = await client.call('POST', `${space.path}/plugins/uploads`, {
      name: 'twice_embed',
      version: '1.0.0',
      file_size_bytes: 5,
    });
    await fetch(upload.presigned_url, {
      method: 'PUT',
      headers: { 'Content-Type': 'application/zip' },
      body: new Uint8Array(archive),
    });
    const confirm = () => client.call('POST', `${space.path}/plugins/uploads/${upload.upload_id}/confirm`);
    const first = await confirm();
    expect(await confirm()).toEqual(first);
  });

  it('has versions side by side, and a version cannot be made of other bytes', async () => {
    const one = await uploadPlugin(space, 'versioned', '1.0.0', zip(renamed('versioned')));
    expect(one.status).toBe(200);
    const two = await uploadPlugin(
      space,
      'versioned',
      '1.1.0',
      zip(
        renamed(
          'versioned',
          manifest((text) => text.replace('"1.0.0"', '"1.1.0"')),
        ),
      ),
    );
    expect(two.body).toMatchObject({ plugin_id: 'versioned_1_1_0' });
    const clash = await uploadPlugin(
      space,
      'versioned',
      '1.0.0',
      zip(renamed('versioned', { 'pipeline.py': (text) => `${text}\n# changed\n` })),
    );
    expect(clash.status).toBe(409);
    expect(clash.body.error.details.code).toBe('plugin_version_exists');
  });

  it('is deployed for realtime where its archive has a realtime.py', async () => {
    const id = await usePlugin(space, 'word_realtime', 'realtime');
    expect(await client.call('GET', `${space.path}/plugins/${id}/status`)).toMatchObject({
      deployment_type: 'realtime',
      realtime_enabled: true,
    });
  });

  it('cannot be deleted while a collection uses it, and the answer lists the collection', async () => {
    const setup = await makeCollection(space, 'uses-plugin');
    const fault = await client.refused(409, 'DELETE', `${space.path}/plugins/word_embed_1_0_0`);
    expect(fault).toMatchObject({ type: 'ConflictError', code: 'plugin_in_use' });
    expect(fault.details.dependants).toEqual([
      expect.objectContaining({ type: 'collection', id: setup.collectionId, name: 'uses-plugin' }),
    ]);
    await client.call('DELETE', setup.collection);
    expect(await client.call('DELETE', `${space.path}/plugins/word_embed_1_0_0`)).toMatchObject({
      success: true,
    });
    expect((await client.ask('DELETE', `${space.path}/plugins/word_embed_1_0_0`)).status).toBe(404);
  });

  it('is not there before its upload was put, nor for a random id', async () => {
    const upload = await client.call('POST', `${space.path}/plugins/uploads`, {
      name: 'never_put',
      version: '1.0.0',
    });
    expect(
      await client.refused(409, 'POST', `${space.path}/plugins/uploads/${upload.upload_id}/confirm`),
    ).toMatchObject({ code: 'upload_missing' });
    expect((await client.ask('GET', `${space.path}/plugins/never_put_1_0_0`)).status).toBe(404);
    expect(
      (await client.ask('POST', `${space.path}/plugins/uploads/upl_${'0'.repeat(20)}/confirm`)).status,
    ).toBe(404);
    expect((await client.ask('POST', `${space.path}/plugins/absent_1_0_0/deploy`)).status).toBe(404);
  });
});

describe('a plugin archive with a fault is refused, nothing of it is stored, and the answer says what to write', () => {
  interface Bad {
    readonly title: string;
    readonly files: (name: string) => Record<string, string>;
    /** Each must be in what the answer says. */
    readonly says: readonly RegExp[];
  }
  const bad: readonly Bad[] = [
    {
      title: '"dimensions" for embedding_dim',
      files: (name) =>
        renamed(
          name,
          manifest((text) => text.replace('"embedding_dim"', '"dimensions"')),
        ),
      says: [/manifest\.py\.\d+/, /dimensions/, /embedding_dim/],
    },
    {
      title: '"distance" for distance_metric',
      files: (name) =>
        renamed(
          name,
          manifest((text) => text.replace('"distance_metric"', '"distance"')),
        ),
      says: [/manifest\.py\.\d+/, /distance_metric/],
    },
    {
      title: '"name" and "type" for feature_name and feature_type',
      files: (name) =>
        renamed(
          name,
          manifest((text) => text.replace('"feature_name"', '"name"').replace('"feature_type"', '"type"')),
        ),
      says: [/feature_name/, /feature_type/],
    },
    {
      title: 'a value that would have to be computed',
      files: (name) =>
        renamed(
          name,
          manifest((text) => text.replace('128,', '64 * 2,')),
        ),
      says: [/manifest\.py\.\d+/, /literal/i],
    },
    {
      title: 'a version that is not the one announced',
      files: (name) =>
        renamed(
          name,
          manifest((text) => text.replace('"1.0.0"', '"2.0.0"')),
        ),
      says: [/manifest\.py/, /2\.0\.0/, /1\.0\.0/],
    },
    {
      title: 'no pipeline.py',
      files: (name) => renamed(name, { 'pipeline.py': () => undefined }),
      says: [/pipeline\.py/],
    },
    {
      title: 'no manifest.py',
      files: (name) => renamed(name, { 'manifest.py': () => undefined }),
      says: [/manifest\.py/],
    },
    {
      title: 'code that starts programs',
      files: (name) =>
        renamed(name, { 'pipeline.py': (text) => `import subprocess\nsubprocess.run(["id"])\n${text}` }),
      says: [/pipeline\.py\.1/, /subprocess/],
    },
    {
      title: 'code that does not parse',
      files: (name) => renamed(name, { 'pipeline.py': (text) => `def (:\n${text}` }),
      says: [/pipeline\.py\.1/],
    },
    {
      title: 'a path that leads out of it',
      files: (name) => ({ ...renamed(name), [`${name}/../../evil.py`]: 'x = 1\n' }),
      says: [/evil\.py|\.\./],
    },
  ];

  it.each(bad.map((one, i) => ({ ...one, name: `bad_plugin_${i}` })))(
    '$title',
    async ({ files, says, name }) => {
      const reply = await uploadPlugin(space, name, '1.0.0', zip(files(name)));
      expect(reply.status).toBe(422);
      expect(reply.body.error).toMatchObject({
        type: 'ValidationError',
        details: { code: 'plugin_invalid' },
      });
      const told = reply.body.error.details.validation_errors
        .map((one: Json) => `${one.location.join('.')}: ${one.message} ${one.fix ?? ''}`)
        .join('\n');
      for (const part of says) expect(told).toMatch(part);
      expect((await client.ask('GET', `${space.path}/plugins/${name}_1_0_0`)).status).toBe(404);
    },
  );

  it('bytes that are no zip', async () => {
    const reply = await uploadPlugin(space, 'no_zip', '1.0.0', Buffer.from('this is no archive'));
    expect(reply.status).toBe(422);
    expect(reply.body.error.details.code).toBe('plugin_invalid');
  });
});

it('reads a manifest without running it: a statement that would end the reader does nothing', async () => {
  const reply = await uploadPlugin(
    space,
    'runs_code',
    '1.0.0',
    zip(
      renamed(
        'runs_code',
        manifest((text) => `${text}\nraise SystemExit("ran")\n`),
      ),
    ),
  );
  expect(reply.body).toMatchObject({
    validation_status: 'passed',
    feature_uri: 'mixpeek://runs_code@1.0.0/runs_code_v1_embedding',
  });
});
