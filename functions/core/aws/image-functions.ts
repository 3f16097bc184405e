// Plugins in container images: one Lambda function for each plugin version of a namespace, made when it is deployed.
import { createHash } from 'node:crypto';
import type { GetFunctionCommandOutput } from '@aws-sdk/client-lambda';
import {
  CreateFunctionCommand,
  DeleteFunctionCommand,
  GetFunctionCommand,
  LambdaClient,
  UpdateFunctionCodeCommand,
  UpdateFunctionConfigurationCommand,
} from '@aws-sdk/client-lambda';
import { AppError } from '../errors.ts';
import type { FunctionCaller, ImageFunction, ImageFunctions } from '../ports.ts';
import { LambdaCaller } from './invoke.ts';

/** What the stage says; `infra/constructs/image-runner.ts` writes it. */
export interface ImageFunctionSettings {
  /** Beginning of the names of these functions, at most 32 characters. */
  readonly name_prefix: string;
  /** ARN of the role that they run under. */
  readonly role: string;
  readonly log_group: string;
  readonly log_level: 'DEBUG' | 'INFO' | 'WARN' | 'ERROR';
  /** `<registry>/<prefix>/`, below which each namespace has a repository named by its id. */
  readonly repositories: string;
  readonly timeout_seconds: number;
  /** Of the network that they live in; none of both: outside of any. */
  readonly subnets: readonly string[];
  readonly security_groups: readonly string[];
}

/** The process that the plugin is forked from takes about 300 MB; CPU comes with memory, a whole one at 1,769 MB. */
const memoryMbOf = { small: 1_024, standard: 2_048, large: 3_008 } as const;

const tagOrDigest = /^(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}|@sha256:[0-9a-f]{64})$/;
const below = /^(\/[a-z0-9]+([._-][a-z0-9]+)*)*/;

const isNamed = (error: unknown, ...names: readonly string[]) =>
  error instanceof Error && names.includes(error.name);

function unavailable(error: unknown): AppError {
  return new AppError('plugin_unavailable', {
    cause: error,
    internal: `${(error as Error).name}: ${(error as Error).message}`,
    retryAfterSeconds: 10,
  });
}

/** What the service says of an image, without its words: those hold the names of our roles. */
function imageFault(image: string, reason: string, internal: string): AppError {
  const why = /not exist|not found|NotFound/i.test(reason)
    ? 'the registry has no such image'
    : /permission|AccessDenied|not authorized/i.test(reason)
      ? 'its repository does not let Lambda pull it; layers/runner-image/Dockerfile says which policy it needs'
      : 'it must be an image for linux/amd64 in a format of Lambda, of at most 10 GB; build it from layers/runner-image';
  return new AppError('plugin_failed', {
    detail: `The image ${image} cannot be used: ${why}.`,
    extra: { plugin_error: 'container_image_unusable' },
    internal,
  });
}

export class LambdaImageFunctions implements ImageFunctions {
  readonly #settings: ImageFunctionSettings;
  readonly #client: LambdaClient;
  readonly #callers = new Map<string, FunctionCaller>();

  constructor(settings: ImageFunctionSettings, client: LambdaClient = new LambdaClient({ maxAttempts: 3 })) {
    this.#settings = settings;
    this.#client = client;
  }

  /** Follows from what it names, so that a repetition meets itself and nobody can be given the function of another. */
  #nameOf(namespaceId: string, pluginId: string): string {
    const digest = createHash('sha256').update(`${namespaceId}\u0000${pluginId}`).digest('hex');
    return this.#settings.name_prefix + digest.slice(0, 32);
  }

  refusal(namespaceId: string, image: string): string | undefined {
    const repository = `${this.#settings.repositories}${namespaceId}`;
    const rest = image.startsWith(repository) ? image.slice(repository.length) : '';
    const tag = rest.slice(below.exec(rest)?.[0].length ?? 0);
    return tagOrDigest.test(tag)
      ? undefined
      : `container_image must be in the repository of this namespace: "${repository}:<tag>", or better "${repository}@sha256:<digest>"; got ${JSON.stringify(image.slice(0, 200))}`;
  }

  async ensure(wanted: ImageFunction): Promise<'ready' | 'pending'> {
    const name = this.#nameOf(wanted.namespaceId, wanted.pluginId);
    try {
      const found = await this.#find(name);
      if (!found) {
        await this.#create(name, wanted);
        return 'pending';
      }
      return await this.#bring(name, found, wanted);
    } catch (error) {
      if (error instanceof AppError) throw error;
      // Another deployment of it was faster, or the service still works on the last one.
      if (isNamed(error, 'ResourceConflictException')) return 'pending';
      const message = `${(error as Error).name}: ${(error as Error).message}`;
      if (isNamed(error, 'InvalidParameterValueException', 'AccessDeniedException'))
        throw imageFault(wanted.image, message, message);
      throw unavailable(error);
    }
  }

  async #find(name: string): Promise<GetFunctionCommandOutput | undefined> {
    try {
      return await this.#client.send(new GetFunctionCommand({ FunctionName: name }));
    } catch (error) {
      if (isNamed(error, 'ResourceNotFoundException')) return undefined;
      throw error;
    }
  }

  async #create(name: string, wanted: ImageFunction): Promise<void> {
    const { role, log_group, log_level, timeout_seconds, subnets, security_groups } = this.#settings;
    await this.#client.send(
      new CreateFunctionCommand({
        FunctionName: name,
        Description: `Granary: plugin ${wanted.pluginId} of ${wanted.namespaceId}`.slice(0, 256),
        PackageType: 'Image',
        Code: { ImageUri: wanted.image },
        Architectures: ['x86_64'],
        Role: role,
        MemorySize: memoryMbOf[wanted.memoryClass],
        Timeout: timeout_seconds,
        LoggingConfig: {
          LogFormat: 'JSON',
          LogGroup: log_group,
          ApplicationLogLevel: log_level,
          SystemLogLevel: 'WARN',
        },
        ...(subnets.length === 0
          ? {}
          : { VpcConfig: { SubnetIds: [...subnets], SecurityGroupIds: [...security_groups] } }),
      }),
    );
  }

  /** One step towards what is wanted; the service takes the next change only when it has finished the last one. */
  async #bring(
    name: string,
    found: GetFunctionCommandOutput,
    wanted: ImageFunction,
  ): Promise<'ready' | 'pending'> {
    const { State, StateReasonCode, StateReason, LastUpdateStatus, LastUpdateStatusReason, MemorySize } =
      found.Configuration ?? {};
    if (State === 'Pending' || LastUpdateStatus === 'InProgress') return 'pending';
    if (State === 'Failed') {
      // It never becomes usable; without it the next deployment begins anew.
      await this.#delete(name);
      throw imageFault(wanted.image, `${StateReasonCode} ${StateReason}`, `state of ${name}: ${StateReason}`);
    }
    if (found.Code?.ImageUri !== wanted.image) {
      await this.#client.send(
        new UpdateFunctionCodeCommand({
          FunctionName: name,
          ImageUri: wanted.image,
          Architectures: ['x86_64'],
        }),
      );
      return 'pending';
    }
    if (LastUpdateStatus === 'Failed') {
      const reason = LastUpdateStatusReason ?? '';
      throw imageFault(wanted.image, reason, `update of ${name}: ${reason}`);
    }
    const memoryMb = memoryMbOf[wanted.memoryClass];
    if (MemorySize !== memoryMb) {
      await this.#client.send(
        new UpdateFunctionConfigurationCommand({ FunctionName: name, MemorySize: memoryMb }),
      );
      return 'pending';
    }
    return 'ready';
  }

  async remove(namespaceId: string, pluginId: string): Promise<void> {
    try {
      await this.#delete(this.#nameOf(namespaceId, pluginId));
    } catch (error) {
      throw unavailable(error);
    }
  }

  async #delete(name: string): Promise<void> {
    try {
      await this.#client.send(new DeleteFunctionCommand({ FunctionName: name }));
    } catch (error) {
      if (!isNamed(error, 'ResourceNotFoundException')) throw error; // It is gone, which is what was wanted.
    }
  }

  caller(namespaceId: string, pluginId: string): FunctionCaller {
    const name = this.#nameOf(namespaceId, pluginId);
    const known = this.#callers.get(name) ?? new LambdaCaller(name, false);
    this.#callers.set(name, known);
    return known;
  }
}
