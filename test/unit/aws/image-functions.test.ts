// Functions made of plugins' images: which calls the service gets, and what its answers mean.
import type { FunctionConfiguration, GetFunctionCommandOutput } from '@aws-sdk/client-lambda';
import {
  CreateFunctionCommand,
  DeleteFunctionCommand,
  GetFunctionCommand,
  LambdaClient,
  UpdateFunctionCodeCommand,
  UpdateFunctionConfigurationCommand,
} from '@aws-sdk/client-lambda';
import { mockClient } from 'aws-sdk-client-mock';
import { beforeEach, describe, expect, it } from 'vitest';
import type { ImageFunctionSettings } from '../../../functions/core/aws/image-functions.ts';
import { LambdaImageFunctions } from '../../../functions/core/aws/image-functions.ts';

const client = mockClient(LambdaClient);
const registry = '123456789012.dkr.ecr.eu-west-1.amazonaws.com/granary-dev/';
const settings: ImageFunctionSettings = {
  name_prefix: 'granary-dev-image-',
  role: 'the role',
  log_group: 'the group',
  log_level: 'INFO',
  repositories: registry,
  timeout_seconds: 270,
  subnets: ['subnet-a', 'subnet-b'],
  security_groups: ['sg-a'],
};
const functions = (more: Partial<ImageFunctionSettings> = {}) =>
  new LambdaImageFunctions({ ...settings, ...more }, new LambdaClient({ region: 'eu-west-1' }));
const image = `${registry}ns_a:1`;
const wanted = {
  namespaceId: 'ns_a',
  pluginId: 'net_embed_1_0_0',
  image,
  memoryClass: 'standard',
} as const;
const named = (name: string, message = 'x') => Object.assign(new Error(message), { name });
const there = (
  configuration: Partial<FunctionConfiguration> = {},
  uri = image,
): Pick<GetFunctionCommandOutput, 'Configuration' | 'Code'> => ({
  Configuration: { State: 'Active', LastUpdateStatus: 'Successful', MemorySize: 2048, ...configuration },
  Code: { ImageUri: uri },
});
const calls = () => client.calls().map(({ args }) => args[0].constructor.name);

beforeEach(() => client.reset());

describe('ensure', () => {
  it('makes a function of the image with the role, the network and the logs of the stage', async () => {
    client.on(GetFunctionCommand).rejects(named('ResourceNotFoundException'));
    client.on(CreateFunctionCommand).resolves({});
    expect(await functions().ensure(wanted)).toBe('pending');
    const [created] = client.commandCalls(CreateFunctionCommand);
    const { input } = created!.args[0];
    expect(input).toMatchObject({
      PackageType: 'Image',
      Code: { ImageUri: image },
      Architectures: ['x86_64'],
      Role: 'the role',
      MemorySize: 2048,
      Timeout: 270,
      LoggingConfig: { LogFormat: 'JSON', LogGroup: 'the group' },
      VpcConfig: { SubnetIds: ['subnet-a', 'subnet-b'], SecurityGroupIds: ['sg-a'] },
    });
    expect(input.FunctionName).toMatch(/^granary-dev-image-[0-9a-f]{32}$/);
    expect(input.Environment).toBeUndefined();
  });

  it('has no network where the stage has none, and memory by the class of the plugin', async () => {
    client.on(GetFunctionCommand).rejects(named('ResourceNotFoundException'));
    client.on(CreateFunctionCommand).resolves({});
    const open = functions({ subnets: [], security_groups: [] });
    for (const memoryClass of ['small', 'large'] as const) await open.ensure({ ...wanted, memoryClass });
    const inputs = client.commandCalls(CreateFunctionCommand).map(({ args }) => args[0].input);
    expect(inputs.map(({ MemorySize }) => MemorySize)).toEqual([1024, 3008]);
    for (const input of inputs) expect(input.VpcConfig).toBeUndefined();
  });

  it('gives two namespaces, and two plugins, functions of their own', async () => {
    client.on(GetFunctionCommand).resolves(there());
    await functions().ensure(wanted);
    await functions().ensure({ ...wanted, namespaceId: 'ns_b' });
    await functions().ensure({ ...wanted, pluginId: 'net_embed_1_0_1' });
    await functions().ensure(wanted);
    const names = client.commandCalls(GetFunctionCommand).map(({ args }) => args[0].input.FunctionName);
    expect(new Set(names).size).toBe(3);
    expect(names[3]).toBe(names[0]);
  });

  it('is ready when the function is there as wanted, and changes nothing then', async () => {
    client.on(GetFunctionCommand).resolves(there());
    expect(await functions().ensure(wanted)).toBe('ready');
    expect(calls()).toEqual(['GetFunctionCommand']);
  });

  it.each([
    ['is being made', { State: 'Pending' }] as const,
    ['is being changed', { LastUpdateStatus: 'InProgress' }] as const,
  ])('waits while it %s', async (_, configuration) => {
    client.on(GetFunctionCommand).resolves(there(configuration));
    expect(await functions().ensure(wanted)).toBe('pending');
    expect(calls()).toEqual(['GetFunctionCommand']);
  });

  it('brings an older function to the image, then to the memory, one change at a time', async () => {
    client
      .on(GetFunctionCommand)
      .resolvesOnce(there({ MemorySize: 1024 }, `${registry}ns_a:0`))
      .resolvesOnce(there({ MemorySize: 1024 }))
      .resolves(there());
    client.on(UpdateFunctionCodeCommand).resolves({});
    client.on(UpdateFunctionConfigurationCommand).resolves({});
    const states = [];
    for (let i = 0; i < 3; i++) states.push(await functions().ensure(wanted));
    expect(states).toEqual(['pending', 'pending', 'ready']);
    expect(client.commandCalls(UpdateFunctionCodeCommand)[0]!.args[0].input.ImageUri).toBe(image);
    expect(client.commandCalls(UpdateFunctionConfigurationCommand)[0]!.args[0].input.MemorySize).toBe(2048);
  });

  it('takes a race with another deployment as work that goes on', async () => {
    client.on(GetFunctionCommand).rejects(named('ResourceNotFoundException'));
    client.on(CreateFunctionCommand).rejects(named('ResourceConflictException'));
    expect(await functions().ensure(wanted)).toBe('pending');
  });

  it.each([
    ['Source image 123.dkr/x:1 does not exist.', /no such image/],
    [
      'Lambda does not have permission to access the ECR image. arn:aws:iam::1:role/x',
      /does not let Lambda pull/,
    ],
    ['The image manifest is not supported.', /linux\/amd64/],
  ])(
    'says what is wrong with an image that is refused (%s), in no words of the service',
    async (said, why) => {
      client.on(GetFunctionCommand).rejects(named('ResourceNotFoundException'));
      client.on(CreateFunctionCommand).rejects(named('InvalidParameterValueException', said));
      const error = await functions()
        .ensure(wanted)
        .catch((thrown: unknown) => thrown);
      expect(error).toMatchObject({ code: 'plugin_failed', message: expect.stringMatching(why) });
      expect((error as Error).message).not.toMatch(/arn:/);
    },
  );

  it('throws away a function that never came to life, so that the next deployment begins anew', async () => {
    client
      .on(GetFunctionCommand)
      .resolves(
        there({ State: 'Failed', StateReasonCode: 'ImageAccessDenied', StateReason: 'no permission' }),
      );
    client.on(DeleteFunctionCommand).resolves({});
    await expect(functions().ensure(wanted)).rejects.toMatchObject({
      code: 'plugin_failed',
      message: expect.stringMatching(/does not let Lambda pull/),
    });
    expect(calls()).toEqual(['GetFunctionCommand', 'DeleteFunctionCommand']);
  });

  it('reports an update that failed', async () => {
    client
      .on(GetFunctionCommand)
      .resolves(there({ LastUpdateStatus: 'Failed', LastUpdateStatusReason: 'image not found' }));
    await expect(functions().ensure(wanted)).rejects.toMatchObject({ code: 'plugin_failed' });
  });

  it('is unavailable when the service is', async () => {
    client.on(GetFunctionCommand).rejects(named('TooManyRequestsException'));
    await expect(functions().ensure(wanted)).rejects.toMatchObject({ code: 'plugin_unavailable' });
  });
});

describe('remove', () => {
  it('deletes the function of this plugin, and does nothing when it is gone', async () => {
    client.on(DeleteFunctionCommand).resolvesOnce({}).rejects(named('ResourceNotFoundException'));
    for (let i = 0; i < 2; i++) await functions().remove('ns_a', 'net_embed_1_0_0');
    const [first, second] = client
      .commandCalls(DeleteFunctionCommand)
      .map(({ args }) => args[0].input.FunctionName);
    expect(first).toBe(second);
  });

  it('fails when the service does, so that it is tried again', async () => {
    client.on(DeleteFunctionCommand).rejects(named('ServiceException'));
    await expect(functions().remove('ns_a', 'p')).rejects.toMatchObject({ code: 'plugin_unavailable' });
  });
});

describe('refusal', () => {
  const digest = `@sha256:${'a'.repeat(64)}`;

  it.each([`${registry}ns_a:1`, `${registry}ns_a${digest}`, `${registry}ns_a/models/clip:v1.2-x`])(
    'admits %s, an image of the own namespace',
    (uri) => expect(functions().refusal('ns_a', uri)).toBeUndefined(),
  );

  it.each([
    ['of another namespace', `${registry}ns_b:1`],
    ['of a namespace whose id begins alike', `${registry}ns_ab:1`],
    ['that climbs out', `${registry}ns_a/../ns_b:1`],
    ['without tag or digest', `${registry}ns_a`],
    ['with a digest that is none', `${registry}ns_a@sha256:abc`],
    ['of another account', `999999999999.dkr.ecr.eu-west-1.amazonaws.com/granary-dev/ns_a:1`],
    ['of the public', 'docker.io/library/python:3.13'],
    ['that is empty', ''],
  ])('refuses an image %s, and names the right form', (_, uri) => {
    expect(functions().refusal('ns_a', uri)).toContain(`${registry}ns_a:<tag>`);
  });
});
