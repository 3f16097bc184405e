// Where the service is and who asks: options, then the environment, then a profile in a file that only its owner reads.
import { existsSync, readFileSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CliError } from './errors.ts';

export interface Settings {
  /** Without a slash at its end and without `/v1`. */
  readonly url: string;
  readonly key: string;
  /** Id or name; undefined where a command needs none. */
  readonly namespace: string | undefined;
}

/** The options that every command takes. */
export interface SettingOptions {
  readonly url?: string | undefined;
  readonly key?: string | undefined;
  readonly namespace?: string | undefined;
  readonly profile?: string | undefined;
}

type Profile = { readonly url?: unknown; readonly key?: unknown; readonly namespace?: unknown };
type Environment = Readonly<Record<string, string | undefined>>;

/** What `npm start` leaves about the local stack; the profile `local`. */
const localEndpoint = fileURLToPath(new URL('../.local/endpoint.json', import.meta.url));

/** `~/.config/granary/config.json`, or below XDG_CONFIG_HOME. */
export function configFile(env: Environment): string {
  return join(env.XDG_CONFIG_HOME || join(env.HOME || homedir(), '.config'), 'granary', 'config.json');
}

function readJson(file: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(readFileSync(file, 'utf8'));
    if (typeof value === 'object' && value !== null && !Array.isArray(value))
      return value as Record<string, unknown>;
  } catch (error) {
    throw new CliError('usage', `${file} cannot be read as JSON: ${(error as Error).message}`);
  }
  throw new CliError('usage', `${file} is not a JSON object`);
}

function readProfile(name: string | undefined, env: Environment): Profile {
  const wanted = name ?? env.GRANARY_PROFILE;
  const file = configFile(env);
  if (existsSync(file)) {
    // The file holds keys.
    if ((statSync(file).mode & 0o077) !== 0)
      throw new CliError('usage', `${file} can be read by others. It holds keys: chmod 600 ${file}`);
    const { profiles } = readJson(file) as { profiles?: Record<string, Profile> };
    if (typeof profiles !== 'object' || profiles === null)
      throw new CliError(
        'usage',
        `${file} has no "profiles". Right form: {"profiles": {"default": {"url": "...", "key": "...", "namespace": "..."}}}`,
      );
    const chosen = wanted ?? 'default';
    if (Object.hasOwn(profiles, chosen)) return profiles[chosen]!;
    if (wanted !== undefined && wanted !== 'local')
      throw new CliError(
        'usage',
        `${file} has no profile "${wanted}"; it has ${Object.keys(profiles).join(', ') || 'none'}`,
      );
  } else if (wanted !== undefined && wanted !== 'local') {
    throw new CliError('usage', `there is no ${file}, so there is no profile "${wanted}"`);
  }
  if (wanted !== 'local') return {};
  if (!existsSync(localEndpoint))
    throw new CliError('usage', 'the profile "local" is the stack of "npm start", which does not run');
  const { base_url, api_key, namespace_id } = readJson(localEndpoint);
  return { url: base_url, key: api_key, namespace: namespace_id };
}

const textOf = (value: unknown) => (typeof value === 'string' && value !== '' ? value : undefined);

/** @throws CliError usage, naming what is missing and every way to give it */
export function readSettings(options: SettingOptions, env: Environment): Settings {
  const profile = readProfile(options.profile, env);
  const url = options.url ?? textOf(env.GRANARY_URL) ?? textOf(profile.url);
  const key = options.key ?? textOf(env.GRANARY_API_KEY) ?? textOf(profile.key);
  const namespace = options.namespace ?? textOf(env.GRANARY_NAMESPACE) ?? textOf(profile.namespace);
  if (url === undefined)
    throw new CliError(
      'usage',
      'where is the service? Set GRANARY_URL, or --url, or a profile (--profile local: the stack of "npm start")',
    );
  if (!/^https?:\/\/[^\s]+$/.test(url) || !URL.canParse(url))
    throw new CliError(
      'usage',
      `"${url}" is no URL. Right form: https://ID.execute-api.REGION.amazonaws.com/api`,
    );
  if (key === undefined)
    throw new CliError(
      'usage',
      'which key? Set GRANARY_API_KEY, or --key, or a profile. "npm run keys:create" makes the first one',
    );
  return { url: url.replace(/\/+$/, '').replace(/\/v1$/, ''), key, namespace };
}
