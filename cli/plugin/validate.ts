// `granary plugin validate`: every fault of a plugin with its place and the fix, without running any of it.
import { CliError } from '../errors.ts';
import { byteSize, type Output } from '../output.ts';
import { awsRuntime, type CheckedPlugin, checkPlugin, findingLines, showWarnings } from './check.ts';
import { findPython } from './python.ts';
import { count } from './words.ts';

type Environment = Readonly<Record<string, string | undefined>>;

export interface PythonOptions {
  readonly python?: string;
}

export interface ValidateOptions extends PythonOptions {
  readonly forAws?: boolean;
}

/** What `--json` prints. */
function report(plugin: CheckedPlugin) {
  const { manifest, name, version, errors, warnings, hasRealtime, entry, folder } = plugin;
  return {
    ok: errors.length === 0,
    name,
    version,
    errors,
    warnings,
    manifest,
    has_realtime: hasRealtime,
    entry,
    archive: {
      sha256: plugin.sha256,
      bytes: plugin.archive.length,
      files: folder.files.map(({ path }) => path),
      left_out: folder.leftOut,
    },
  };
}

export const nameOf = ({ name, version, folder }: CheckedPlugin): string =>
  name === null ? folder.name : version === null ? name : `${name} ${version}`;

/** @throws CliError faulty if the plugin has a fault, after every one was printed */
export async function validateCommand(
  output: Output,
  env: Environment,
  dir: string,
  options: ValidateOptions,
): Promise<void> {
  const plugin = await checkPlugin(
    dir,
    findPython(options.python, env),
    options.forAws ? { runtime: awsRuntime } : {},
  );
  showWarnings(output, plugin);
  const { errors } = plugin;
  output.result(report(plugin), errors.length > 0 ? errors.flatMap(findingLines) : summary(plugin));
  if (errors.length > 0)
    throw new CliError('faulty', `${nameOf(plugin)} has ${count(errors.length, 'fault')}`);
}

function summary(plugin: CheckedPlugin): string[] {
  const { features = [] } = plugin.manifest ?? {};
  return [
    `${nameOf(plugin)} is sound: ${count(plugin.folder.files.length, 'file')}, ${byteSize(plugin.archive.length)} packed${plugin.hasRealtime ? ', with realtime.py' : ''}`,
    ...features.map(
      ({ feature_name, embedding_dim, distance_metric }) =>
        `  ${feature_name}: ${embedding_dim} numbers, compared by ${distance_metric}`,
    ),
    ...(plugin.folder.leftOut.length > 0
      ? [`  left out of the archive: ${plugin.folder.leftOut.join(', ')}`]
      : []),
  ];
}
