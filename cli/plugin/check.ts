// Packs a plugin as a push would and judges it by the rules that the service applies at confirm: the same file with the
// rules for archives, the same validator.
import { readArchive } from '../../functions/core/resources/plugins/archive.ts';
import type { Output } from '../output.ts';
import { type PluginFolder, readFolder } from './folder.ts';
import { packFiles, sha256Of, zipOf } from './pack.ts';
import { askPython, functionFolder } from './python.ts';

/** What the validator, or a rule for archives, has to say. */
export interface Finding {
  readonly type: string;
  /** Path, line and column; line 0 where it is about the file as a whole. */
  readonly location: readonly (string | number)[];
  readonly message: string;
  readonly fix?: string | undefined;
}

/** What the validator read from manifest.py, as far as this program uses it. */
export interface Manifest {
  readonly feature_extractor_name: string;
  readonly version: string;
  readonly description: string;
  readonly features: readonly {
    readonly feature_name: string;
    readonly embedding_dim: number;
    readonly distance_metric: string;
  }[];
  readonly input_mappings: Readonly<Record<string, string>> | readonly string[];
  readonly compute_profile: Readonly<Record<string, unknown>>;
  readonly secrets?: readonly string[];
}

export interface CheckedPlugin {
  readonly folder: PluginFolder;
  readonly archive: Buffer;
  readonly sha256: string;
  /** The archive's top folder with a slash. */
  readonly root: string;
  /** As the manifest gives them; null where it does not. */
  readonly name: string | null;
  readonly version: string | null;
  /** First and last byte of the version's literal in manifest.py; null where it is no plain literal. */
  readonly versionSpan: readonly [number, number] | null;
  readonly errors: readonly Finding[];
  readonly warnings: readonly Finding[];
  /** Null unless there are no errors. */
  readonly manifest: Manifest | null;
  readonly hasRealtime: boolean;
  readonly entry: string | null;
}

interface ValidatorReply {
  readonly identity: {
    readonly name: string | null;
    readonly version: string | null;
    readonly version_span: readonly [number, number] | null;
  };
  readonly validation: {
    readonly ok: boolean;
    readonly errors: readonly Finding[];
    readonly warnings: readonly Finding[];
    readonly manifest: Manifest | null;
    readonly has_realtime: boolean;
    readonly entry: string | null;
  };
}

/** What the runner of a stage on AWS is; wheels below `vendor/` must fit it. */
export const awsRuntime = { python: '3.13', machine: 'x86_64' } as const;

export interface CheckOptions {
  /** What the plugin is to run on; left out: the Python here. */
  readonly runtime?: typeof awsRuntime;
  /** What only the namespace can know is taken for granted, since the service decides it. */
  readonly allowAll?: boolean;
}

/**
 * Reads, packs and checks a folder. Nothing of the plugin is run.
 *
 * The archive's top folder is named after the plugin, not after the folder here, so that a copy elsewhere gives the
 * same bytes, and imports by that name work the same everywhere.
 *
 * @throws CliError usage if there is no plugin in the folder, or no Python for it
 */
export async function checkPlugin(
  dir: string,
  python: string,
  { runtime, allowAll = false }: CheckOptions = {},
): Promise<CheckedPlugin> {
  const folder = readFolder(dir);
  const packed = packFiles(folder.files);
  const given = await readArchive(zipOf(packed, folder.name));
  if (!given.ok) return refused(folder, given.faults);
  const { sources, otherFiles } = given.archive;
  const { identity, validation } = await askPython<ValidatorReply>(python, {
    operation: 'validate',
    folder: functionFolder('plugin-validator'),
    fallback_name: 'my_plugin',
    event: {
      files: [...sources].map(([path, content]) => ({ path, content_base64: content.toString('base64') })),
      other_files: otherFiles,
      ...(runtime === undefined ? {} : { runtime }),
      ...(allowAll ? { allow: { egress: true, container_images: true } } : {}),
    },
  });
  const archive = zipOf(packed, identity.name ?? folder.name);
  // Once more, since this is what is sent; a name of the manifest's breaks no rule that a folder's keeps.
  const read = await readArchive(archive);
  if (!read.ok) return refused(folder, read.faults);
  return {
    folder,
    archive,
    sha256: sha256Of(archive),
    root: read.archive.root,
    name: identity.name,
    version: identity.version,
    versionSpan: identity.version_span,
    errors: validation.errors,
    warnings: validation.warnings,
    manifest: validation.manifest,
    hasRealtime: validation.has_realtime,
    entry: validation.entry,
  };
}

function refused(folder: PluginFolder, errors: readonly Finding[]): CheckedPlugin {
  return {
    folder,
    archive: Buffer.alloc(0),
    sha256: '',
    root: '',
    name: null,
    version: null,
    versionSpan: null,
    errors,
    warnings: [],
    manifest: null,
    hasRealtime: false,
    entry: null,
  };
}

/** `manifest.py:12:9: message`, and the fix on a line of its own. */
export function findingLines(finding: Finding): string[] {
  const [path, line, column] = finding.location;
  const place = Number(line) > 0 ? `${path}:${line}:${column}` : String(path);
  // The rules for archives name the file in their message as well.
  const message = finding.message.startsWith(`${path}: `)
    ? finding.message.slice(`${path}: `.length)
    : finding.message;
  const lines = [`${place}: ${oneLine(message)}`];
  return finding.fix === undefined ? lines : [...lines, `    fix: ${oneLine(finding.fix)}`];
}

const oneLine = (text: string) => text.replaceAll(/\s*[\n\r]\s*/g, ' ');

/** Warnings go to standard error, so that a result can be read by another program. */
export function showWarnings(output: Output, plugin: CheckedPlugin): void {
  if (!output.json) for (const one of plugin.warnings) output.warn(findingLines(one).join('\n'));
}
