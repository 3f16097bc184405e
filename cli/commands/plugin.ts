// `granary plugin ...`: from an empty folder to a deployed plugin, and what it said in batches.

import { jsonObject, oneOf, several, wholeNumber } from '../options.ts';
import { type InitOptions, initCommand, type TemplateName, templates } from '../plugin/init.ts';
import { logsCommand } from '../plugin/logs.ts';
import { bumps, deployments, pushCommand } from '../plugin/push.ts';
import { type MemoryClass, memoryClasses, type TestOptions, testCommand } from '../plugin/test.ts';
import { type ValidateOptions, validateCommand } from '../plugin/validate.ts';
import type { CommandGroup } from './command.ts';

const rowsMax = 10_000;
const secondsMax = 900;

const pythonOption = [
  '--python <file>',
  'the Python to use; else GRANARY_PYTHON, else that of .local/venv',
] as const;

const templatesHelp = `
Templates:
${Object.entries(templates)
  .map(([name, does]) => `  ${name.padEnd(9)} ${does}`)
  .join('\n')}`;

const dataHelp = `
Rows:
  JSON lines   {"text": "..."}, {"data": ...}, a bare "text", or a file: {"image": "samples/a.png"}, {"any": {"file": "a.pdf"}}
  CSV          with a head; the column is that of input_mappings in manifest.py, or --column
A plugin's rows are made as in a batch: one for each property that input_mappings names and the object has.

Exit code 1: the plugin is unsound, a row failed, or realtime.py disagrees with the batch steps.`;

/** `granary plugin` */
export const plugin: CommandGroup = (program, run, runLocally) => {
  const group = program
    .command('plugin')
    .description("plugins of one's own: begin, check, try, upload, read their logs");
  group
    .command('init')
    .description('write a working plugin into a new folder')
    .argument('<name>', 'a letter, then letters, digits and "_"; 3 to 64 in all')
    .option(
      '--template <name>',
      Object.keys(templates).join(', '),
      oneOf(Object.keys(templates) as TemplateName[]),
      'text',
    )
    .option('--dir <folder>', 'where to; else a folder of the same name')
    .option('--realtime', 'with a realtime.py, which answers single queries')
    .addHelpText('after', templatesHelp)
    .action(
      runLocally(async ({ output, env }, name: string, options: InitOptions) =>
        initCommand(output, env, name, options),
      ),
    );
  group
    .command('validate')
    .description('every fault with its place and the fix, by the checks of the service; nothing is run')
    .argument('[folder]', 'of the plugin', '.')
    .option(...pythonOption)
    .option('--for-aws', 'wheels below vendor/ must fit the Python of a stage on AWS, not the one here')
    .addHelpText('after', '\nExit code 1: there are faults.')
    .action(
      runLocally(({ output, env }, dir: string, options: ValidateOptions) =>
        validateCommand(output, env, dir, options),
      ),
    );
  group
    .command('test')
    .description('run the plugin over rows of a file, by the runner of the service, and show what came of it')
    .argument('[folder]', 'of the plugin', '.')
    .option('--data <file>', 'rows: .jsonl or .csv')
    .option('--text <text>', 'a row with this text; may be repeated', several)
    .option('--rows <n>', 'at most so many rows', wholeNumber(rowsMax), 100)
    .option('--column <name>', 'the column or key to take, whatever input_mappings says')
    .option('--realtime', 'also ask realtime.py, and compare')
    .option('--inputs <json>', 'ask realtime.py exactly this, instead of running rows', jsonObject)
    .option('--parameters <json>', 'feature_extractor parameters of the collection', jsonObject)
    .option(
      '--secrets-file <file>',
      'values of the secrets that the manifest names: JSON, or lines NAME=value',
    )
    .option(
      '--limit-memory <class>',
      `${Object.entries(memoryClasses)
        .map(([name, mb]) => `${name} (${mb} MB)`)
        .join(', ')}; else what the manifest says`,
      oneOf(Object.keys(memoryClasses) as MemoryClass[]),
    )
    .option('--timeout <seconds>', 'for all rows together', wholeNumber(secondsMax), 240)
    .option('--show <n>', 'so many rows of the result', wholeNumber(rowsMax), 10)
    .option(...pythonOption)
    .addHelpText('after', dataHelp)
    .action(
      runLocally(({ output, env }, dir: string, options: TestOptions) =>
        testCommand(output, env, dir, options),
      ),
    );
  group
    .command('push')
    .description('check, upload and deploy; the same content again changes nothing')
    .argument('[folder]', 'of the plugin', '.')
    .option(
      '--deploy <type>',
      `${deployments.join(', ')}; else realtime where there is a realtime.py and the stage can do it`,
      oneOf(deployments),
    )
    .option(
      '--bump <part>',
      `${bumps.join(', ')}: raise the version in manifest.py if it is there with other content`,
      oneOf(bumps),
    )
    .option(...pythonOption)
    .action(run(pushCommand));
  group
    .command('logs')
    .description('what a plugin printed, warned of and failed at in batches, newest first')
    .argument('[plugin]', 'id, such as my_plugin_1_0_0, or my_plugin@1.0.0')
    .option('--batch <id>', 'of this batch only; needs --bucket')
    .option('--bucket <bucket>', 'id or name')
    .option('--failed', 'only where a row failed')
    .option('--object <id>', 'only calls that got this object')
    .option('--limit <n>', 'so many entries', wholeNumber(rowsMax), 20)
    .addHelpText('after', '\nAn entry is one call of a plugin: the rows of one chunk of a batch.')
    .action(run(logsCommand));
};
