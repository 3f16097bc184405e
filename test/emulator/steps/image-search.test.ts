// Images on the deployed stack: uploaded as files, turned into vectors by a plugin of the user's, found by another image.
import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { projectPython } from '../../../local/emulator.ts';
import type { Json, Setup, Workspace } from '../stack.ts';
import {
  listDocuments,
  makeWorkspace,
  pluginFiles,
  projectFolder,
  runBatch,
  uploadPlugin,
  zip,
} from '../stack.ts';

const featureUri = 'mixpeek://digits_image@1.0.0/digits_image_v1_pixels';
const storedTotal = 60;
const queriesTotal = 20;

interface Digit {
  readonly image: string;
  readonly digit: number;
}

let space: Workspace;
let setup: Setup;
let folder: string;
let digits: readonly Digit[];

const bytesOf = ({ image }: Digit) => readFileSync(join(folder, image));

/** A file through a presigned URL, which makes an object when it is confirmed. @returns the object's id */
async function uploadImage(digit: Digit): Promise<string> {
  const bytes = bytesOf(digit);
  const place = await space.client.call('POST', `${setup.bucket}/uploads`, {
    filename: digit.image,
    content_type: 'image/png',
    file_size_bytes: bytes.length,
    blob_property: 'image',
    object_metadata: { digit: digit.digit, file: digit.image },
  });
  const put = await fetch(place.presigned_url, {
    method: 'PUT',
    headers: { 'Content-Type': 'image/png' },
    body: new Uint8Array(bytes),
  });
  if (!put.ok) throw new Error(`the presigned upload answered ${put.status}`);
  const confirmed = await space.client.call('POST', `${setup.bucket}/uploads/${place.upload_id}/confirm`, {});
  return confirmed.object_id as string;
}

async function searchBy(image: Buffer, limit: number): Promise<Json[]> {
  const found = await space.client.call('POST', `${space.path}/retrievers/like_this/execute`, {
    inputs: { image: image.toString('base64') },
    limit,
  });
  return found.results;
}

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'granary-digits-'));
  const script = join(projectFolder, 'examples', 'make_digits.py');
  await promisify(execFile)(projectPython, [script, folder, '--count', String(storedTotal + queriesTotal)]);
  digits = readFileSync(join(folder, 'labels.jsonl'), 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Digit);

  space = await makeWorkspace('images');
  const { client, path } = space;
  const archive = zip(pluginFiles(join(projectFolder, 'examples', 'digits_image')));
  const uploaded = await uploadPlugin(space, 'digits_image', '1.0.0', archive);
  expect(uploaded.status, JSON.stringify(uploaded.body)).toBe(200);
  await client.call('POST', `${path}/plugins/digits_image_1_0_0/deploy?deployment_type=batch_only`);
  const { bucket_id } = await client.call('POST', `${path}/buckets`, {
    name: 'digits',
    bucket_schema: { properties: { image: { type: 'image', required: true } } },
  });
  const { collection_id } = await client.call('POST', `${path}/collections`, {
    name: 'digits',
    feature_extractors: [{ feature_extractor_name: 'digits_image', version: '1.0.0' }],
    source: { type: 'bucket', bucket_ids: [bucket_id] },
  });
  setup = {
    bucketId: bucket_id,
    collectionId: collection_id,
    bucket: `${path}/buckets/${bucket_id}`,
    collection: `${path}/collections/${collection_id}`,
  };
  await client.call('POST', `${path}/retrievers`, {
    retriever_name: 'like_this',
    collection_identifiers: [collection_id],
    stages: [
      {
        stage_name: 'nearest',
        stage_type: 'filter',
        config: {
          stage_id: 'feature_search',
          parameters: {
            searches: [
              {
                feature_uri: featureUri,
                query: { input_mode: 'content', value: '{{INPUT.image}}', mime_type: 'image/png' },
              },
            ],
          },
        },
      },
    ],
  });
  for (let i = 0; i < storedTotal; i += 10) await Promise.all(digits.slice(i, i + 10).map(uploadImage));
  await runBatch(space, setup);
});
afterAll(async () => {
  await space?.close();
  rmSync(folder, { recursive: true, force: true });
});

describe('images', () => {
  it('become documents with the vectors and columns of the plugin, and the metadata of their uploads', async () => {
    const documents = await listDocuments(space, setup, { return_vectors: true });
    expect(documents).toHaveLength(storedTotal);
    for (const one of documents) {
      expect(one).toMatchObject({ width: 32, height: 32, digit: expect.any(Number) });
      expect(one.vectors[featureUri]).toHaveLength(64);
    }
  });

  it('are found by themselves, first, with a cosine of one', async () => {
    const [first] = await searchBy(bytesOf(digits[7]!), 1);
    expect(first).toMatchObject({ file: digits[7]!.image, digit: digits[7]!.digit });
    expect(first.score).toBeCloseTo(1, 5);
  });

  it('are found by images that are not stored: the nearest shows the same digit in at least 80 %', async () => {
    const asked = digits.slice(storedTotal);
    const right: boolean[] = [];
    for (const one of asked) {
      const [first] = await searchBy(bytesOf(one), 1);
      right.push(first.digit === one.digit);
    }
    expect(right.filter(Boolean).length / asked.length).toBeGreaterThanOrEqual(0.8);
  });

  it('are not found by what is no image, and the answer says so', async () => {
    const reply = await space.client.ask('POST', `${space.path}/retrievers/like_this/execute`, {
      inputs: { image: Buffer.from('this is a text').toString('base64') },
    });
    expect(reply.status).toBeGreaterThanOrEqual(400);
    expect(JSON.stringify(reply.body)).toMatch(/UnidentifiedImageError|cannot identify image/);
  });
});
