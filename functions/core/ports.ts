// What services need from the outside: storage, plugins, time, settings. Handlers get real ones, tests get memory.
import type { BackendPorts } from './backends/registry.ts';
import type { Clock, RandomSource } from './clock.ts';
import type { Blobs } from './store/blobs.ts';
import type { Table } from './store/table.ts';

/** Structured log; values must be safe to store (no keys, no user text above what a message needs). */
export interface Log {
  info(message: string, fields?: Readonly<Record<string, unknown>>): void;
  warn(message: string, fields?: Readonly<Record<string, unknown>>): void;
  error(message: string, fields?: Readonly<Record<string, unknown>>): void;
}

/** Calls a Lambda and waits for its answer. @throws AppError plugin_unavailable, plugin_timeout */
export interface FunctionCaller {
  /**
   * @param tenant `<org>/<namespace>`: own execution environments per tenant, where the stage has that.
   * @returns the decoded reply of the function.
   */
  call(
    payload: unknown,
    options?: { readonly tenant?: string; readonly timeoutMs?: number },
  ): Promise<unknown>;
}

/** Further functions of the plugin runner, each only where the stage has it. */
export interface Runners {
  /** Has a way to the Internet. */
  readonly egress?: FunctionCaller;
  /** Has the memory for plugins of the class `large`. */
  readonly large?: FunctionCaller;
}

/** What runs a plugin version in an image of its own. */
export interface ImageFunction {
  readonly namespaceId: string;
  readonly pluginId: string;
  /** Address of the image in the registry. */
  readonly image: string;
  readonly memoryClass: 'small' | 'standard' | 'large';
}

/** Plugin versions as functions of their own, made from the images that their manifests name. */
export interface ImageFunctions {
  /** Why a namespace cannot use an image, in words for the one who named it; undefined where it can. */
  refusal(namespaceId: string, image: string): string | undefined;
  /**
   * Makes the function, or brings it to this image and size; repeating it is harmless.
   *
   * @returns `pending` while the service still prepares it
   * @throws AppError plugin_failed when the image cannot be used, plugin_unavailable
   */
  ensure(wanted: ImageFunction): Promise<'ready' | 'pending'>;
  /** Repeating it is harmless. @throws AppError plugin_unavailable */
  remove(namespaceId: string, pluginId: string): Promise<void>;
  caller(namespaceId: string, pluginId: string): FunctionCaller;
}

/** Functions that scan parts of an index. */
export interface Scanners {
  readonly functions: readonly FunctionCaller[];
  /** Bytes of vectors or codes that one function holds, the one that asks among them. */
  readonly bytesEach: number;
}

/** Settings of the stage that code (not infrastructure) needs to know. */
export interface Settings {
  readonly stage: string;
  /** Key of the HMACs over API keys and cursors; at least 32 random bytes. */
  readonly pepper: () => Promise<string>;
  /** Requests a minute and key, by class. */
  readonly rateLimits: Readonly<Record<string, number>>;
  /** The local stage alone lets webhooks and blob URLs reach loopback addresses. */
  readonly allowLoopback: boolean;
  /** Whether this stage can deploy plugins for realtime inference. */
  readonly realtimePlugins: boolean;
}

/** Everything outside that a service may touch. */
export interface Ports {
  readonly table: Table;
  /** Objects' bytes, chunk files, results: everything but archives and index. */
  readonly blobs: Blobs;
  readonly archives: Blobs;
  readonly index: Blobs;
  readonly runner: FunctionCaller;
  readonly runners?: Runners;
  /** Where the stage runs plugins as container images. */
  readonly imageFunctions?: ImageFunctions;
  readonly validator: FunctionCaller;
  /** What shares the scan of an index that is too large for one function; undefined where nothing does. */
  readonly scanners?: Scanners;
  /** The vector backends that this stage has; without any, segments are scanned. */
  readonly backends?: BackendPorts;
  readonly clock: Clock;
  readonly random: RandomSource;
  readonly log: Log;
  readonly settings: Settings;
}
