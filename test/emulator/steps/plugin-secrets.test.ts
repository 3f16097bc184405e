// A plugin on the deployed stack gets a secret of its namespace, in its batch steps and in its realtime service; nothing
// that can be read has the value.
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { Client, Workspace } from '../stack.ts';
import { makeWorkspace, uploadPlugin, zip } from '../stack.ts';

const value = 'a-value-that-nobody-may-read';
const files = {
  'asks_key/manifest.py': `
feature_extractor_name = "asks_key"
version = "1.0.0"
description = "Says how long its key is"
features = [
    {
        "feature_type": "embedding",
        "feature_name": "length",
        "embedding_dim": 2,
        "distance_metric": "cosine",
    }
]
secrets = ["MODEL_KEY"]
`,
  'asks_key/pipeline.py': `
def build_steps(extractor_request=None, container=None, **kwargs):
    def step(rows):
        key = container.secrets.get("MODEL_KEY")
        print("the key is", key)
        rows["length"] = [[float(len(key)), 1.0]] * len(rows)
        return rows

    return {"steps": [step]}
`,
  'asks_key/realtime.py': `
class KeyInferenceService:
    def __init__(self, container=None, **kwargs):
        self.container = container

    async def run_inference(self, inputs, parameters):
        key = await self.container.secrets.get("MODEL_KEY")
        print("the key is", key)
        return {"embedding": [float(len(key)), 1.0], "names": self.container.secrets.list()}
`,
};

let space: Workspace;
let client: Client;

beforeAll(async () => {
  space = await makeWorkspace('secrets');
  client = space.client;
  const reply = await uploadPlugin(space, 'asks_key', '1.0.0', zip(files));
  if (reply.status !== 200) throw new Error(JSON.stringify(reply.body));
});
afterAll(() => space?.close());

it('a secret reaches the plugin that declares it, and neither an answer nor a log', async () => {
  const plugin = `${space.path}/plugins/asks_key_1_0_0`;
  const refused = await client.ask('POST', `${plugin}/deploy`, {});
  expect(refused.status).toBe(409);
  expect(refused.body.error.message).toContain('MODEL_KEY');
  const secret = { secret_name: 'MODEL_KEY', secret_value: value };
  expect((await client.ask('POST', `${space.path}/secrets`, secret)).status).toBe(201);
  expect(await client.call('POST', `${plugin}/deploy`, {})).toMatchObject({ status: 'deployed' });
  const answer = await client.call('POST', `${plugin}/realtime/test`, { inputs: { text: 'x' } });
  expect(answer.outputs).toEqual({ embedding: [value.length, 1], names: ['MODEL_KEY'] });
  expect(answer.logs).toContain('the key is');
  const listed = await client.call('GET', `${space.path}/secrets`);
  expect(listed.results).toMatchObject([{ secret_name: 'MODEL_KEY', version: 1 }]);
  expect(JSON.stringify([answer, listed])).not.toContain(value);
});
