// Writes what is generated in docs/: the API document and the table of errors. `npm run docs`; a test compares.
import { readFileSync, writeFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import type { ErrorCode } from '../functions/core/errors.ts';
import { errorTable, wireTypes } from '../functions/core/errors.ts';
import { openApiDocument } from '../functions/core/http/openapi.ts';
import { allRoutes } from '../functions/core/resources/contracts.ts';

const folder = new URL('.', import.meta.url);

function packageVersion(): string {
  return (JSON.parse(readFileSync(new URL('../package.json', folder), 'utf8')) as { version: string }).version;
}

function errorsPage(): string {
  const rows = (Object.keys(errorTable) as ErrorCode[])
    .map((code) => ({ code, status: wireTypes[errorTable[code].type], ...errorTable[code] }))
    .map(({ code, status, type, title, retryable }) => `| \`${code}\` | ${status} | ${type} | ${retryable ? 'yes' : 'no'} | ${title} |`);
  return [
    '# Errors',
    '',
    'Generated from `functions/core/errors.ts` by `npm run docs`.',
    '',
    'Every answer with a status of 400 or more has the body `{success: false, status, error: {message, type, details}}`, and',
    '`error.details.code` is one of these. "Retry" says whether the same request may succeed later. With',
    '`Accept: application/problem+json` the same facts come as RFC 9457.',
    '',
    '| Code | Status | Type | Retry | What it says |',
    '|---|---|---|---|---|',
    ...rows,
    '',
  ].join('\n');
}

/** Name of each generated file below docs/ -> its text. */
export function generatedDocs(): Readonly<Record<string, string>> {
  return {
    'openapi.json': `${JSON.stringify(openApiDocument(allRoutes, packageVersion()), null, 1)}\n`,
    'errors.md': errorsPage(),
  };
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  for (const [name, text] of Object.entries(generatedDocs())) {
    writeFileSync(new URL(name, folder), text);
    console.log(`docs/${name}: ${text.length} characters`);
  }
}
