// Calls of users' code: picks the function that a plugin runs in, and gives the call its archive, secrets and limits.
import type { NsCtx } from '../../context.ts';
import { AppError, isAppError } from '../../errors.ts';
import type { FunctionCaller, Ports } from '../../ports.ts';
import type { Blobs } from '../../store/blobs.ts';
import { openSecrets } from '../secrets/service.ts';
import type { StoredPlugin } from './store.ts';

/** What the plugin itself may take in memory, beyond the process that it is forked from, in MB. */
const memoryMbOf = { small: 256, standard: 1_024, large: 2_048 } as const;
export type MemoryClass = keyof typeof memoryMbOf;

/** The class that a plugin asks for; `standard` where it says nothing. */
export function memoryClassOf(plugin: Pick<StoredPlugin, 'compute_profile'>): MemoryClass {
  const wanted = plugin.compute_profile.memory_class;
  return typeof wanted === 'string' && Object.hasOwn(memoryMbOf, wanted)
    ? (wanted as MemoryClass)
    : 'standard';
}

/** Whether a plugin asks for a way to the Internet. */
export function needsEgress(plugin: Pick<StoredPlugin, 'compute_profile'>): boolean {
  return plugin.compute_profile.resource_type === 'api';
}

/** Why this stage cannot run a plugin, in words for the one who wrote it; undefined where it can. */
export function refusalOf(
  ports: Pick<Ports, 'runners' | 'imageFunctions'>,
  plugin: Pick<StoredPlugin, 'compute_profile' | 'container_image'>,
): string | undefined {
  if (typeof plugin.container_image === 'string') {
    if (needsEgress(plugin))
      return 'it names a container_image and its compute_profile has resource_type "api", and images have no way to the Internet. Use resource_type "cpu".';
    return ports.imageFunctions === undefined
      ? 'it names a container_image, and this stage runs no images (setting "containerImages" of the stage). Remove container_image from manifest.py and vendor the packages under vendor/.'
      : undefined;
  }
  if (needsEgress(plugin) && ports.runners?.egress === undefined)
    return 'its compute_profile has resource_type "api", which needs a way to the Internet, and this stage gives plugins none (setting "runnerEgress" of the stage). Use resource_type "cpu" and bring the model in the archive.';
  if (needsEgress(plugin) && memoryClassOf(plugin) === 'large')
    return 'its compute_profile has both resource_type "api" and memory_class "large", and no function has both. Use memory_class "standard".';
  if (memoryClassOf(plugin) === 'large' && ports.runners?.large === undefined)
    return 'its compute_profile has memory_class "large" (2,048 MB), and this stage has no function of that size (setting "runnerLarge" of the stage). Use memory_class "standard" (1,024 MB).';
  return undefined;
}

/** The tenant of a runner call. The service's pattern admits no `#`. */
export function tenantOf(ctx: NsCtx): string {
  return `${ctx.principal.orgId}/${ctx.ns.namespaceId}`;
}

/** An archive's URL outlives any call: those end after 300 s, and a kept URL has half of this left. */
const archiveUrlSeconds = 900;
/** URLs of archives for the first half of their time; signing one costs as much as reading a row. */
const archiveUrls = new WeakMap<Blobs, Map<string, { readonly url: string; readonly untilMs: number }>>();
const archiveUrlsMax = 1_000;

async function archiveUrlOf(ctx: NsCtx, key: string): Promise<string> {
  const { archives, clock } = ctx.ports;
  const known = archiveUrls.get(archives) ?? new Map<string, { url: string; untilMs: number }>();
  archiveUrls.set(archives, known);
  const found = known.get(key);
  if (found && clock.now() < found.untilMs) return found.url;
  const url = await archives.presignGet(key, archiveUrlSeconds);
  if (known.size >= archiveUrlsMax) known.clear();
  known.set(key, { url, untilMs: clock.now() + (archiveUrlSeconds * 1000) / 2 });
  return url;
}

/** The values of the secrets that the manifest declares. @throws AppError plugin_secret_missing with the names */
export async function secretsOf(ctx: NsCtx, plugin: StoredPlugin): Promise<Record<string, string>> {
  const names = plugin.secrets ?? [];
  if (names.length === 0) return {};
  const values = await openSecrets(ctx, names);
  const missing = names.filter((name) => !Object.hasOwn(values, name));
  if (missing.length === 0) return values;
  const [first] = missing;
  throw new AppError('plugin_secret_missing', {
    detail:
      `${plugin.id} declares the secret${missing.length === 1 ? '' : 's'} ${missing.join(', ')}, which this namespace does not have. ` +
      `Store each by POST /v1/namespaces/${ctx.ns.namespaceId}/secrets {"secret_name": "${first}", "secret_value": "..."}, then try again.`,
    extra: { missing_secrets: missing },
  });
}

/** @throws AppError plugin_not_supported */
function functionOf(ctx: NsCtx, plugin: StoredPlugin): FunctionCaller {
  const { ports } = ctx;
  const refusal = refusalOf(ports, plugin);
  if (refusal !== undefined)
    throw new AppError('plugin_not_supported', { detail: `${plugin.id} cannot run here: ${refusal}` });
  if (typeof plugin.container_image === 'string')
    return ports.imageFunctions!.caller(ctx.ns.namespaceId, plugin.id);
  if (needsEgress(plugin)) return ports.runners!.egress!;
  if (memoryClassOf(plugin) === 'large') return ports.runners!.large!;
  return ports.runner;
}

/**
 * Runs a plugin: one call of the runner (functions/plugin-runner/handler.py says what goes in and out).
 *
 * Adds `plugin`, `secrets` and `limits` to the event, chooses the function, and names the tenant. The caller gives the
 * operation, its features, parameters, rows, addresses and `deadline_ms`. The answer is what came back and nothing in
 * it was checked.
 *
 * @throws AppError plugin_unavailable, plugin_timeout (both may pass), plugin_secret_missing, plugin_not_supported
 *   (these two pass only when somebody changes something)
 */
export async function callRunner(
  ctx: NsCtx,
  plugin: StoredPlugin,
  event: Readonly<Record<string, unknown>>,
  options: { readonly timeoutMs: number },
): Promise<unknown> {
  // A plugin runs for nobody but its own namespace.
  await ctx.entered;
  const caller = functionOf(ctx, plugin);
  const [archive_url, secrets] = await Promise.all([
    archiveUrlOf(ctx, plugin.archive_key),
    secretsOf(ctx, plugin),
  ]);
  const call = caller.call(
    {
      ...event,
      plugin: {
        plugin_id: plugin.id,
        sha256: plugin.archive_sha256,
        archive_url,
        root: plugin.root,
        extractor_id: plugin.id,
      },
      secrets,
      limits: { memory_mb: memoryMbOf[memoryClassOf(plugin)] },
    },
    { tenant: tenantOf(ctx), timeoutMs: options.timeoutMs },
  );
  return call.catch((error: unknown) => {
    throw withoutValues(error, Object.values(secrets));
  });
}

/** A fault of the runner itself may quote what it was given, and errors are logged. */
function withoutValues(error: unknown, values: readonly string[]): unknown {
  if (values.length === 0 || !isAppError(error)) return error;
  const masked = (text: string) => values.reduce((rest, value) => rest.replaceAll(value, '[secret]'), text);
  const { code, detail, internal, extra, retryAfterSeconds } = error;
  return new AppError(code, {
    detail: masked(detail),
    extra,
    ...(internal === undefined ? {} : { internal: masked(internal) }),
    ...(retryAfterSeconds === undefined ? {} : { retryAfterSeconds }),
  });
}
