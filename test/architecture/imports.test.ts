// Import directions: the code keeps every rule, and each rule catches a violation that is planted for it.
import { spawnSync } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

const root = fileURLToPath(new URL('../..', import.meta.url));
const settingsFile = join(root, '.dependency-cruiser.cjs');
const { forbidden } = createRequire(import.meta.url)(settingsFile) as {
  forbidden: { name: string; comment: string }[];
};
const cruiser = join(root, 'node_modules/dependency-cruiser/bin/dependency-cruiser.mjs');
const sourceFolders = ['functions', 'infra', 'local', 'bench', 'cli', 'console', 'docs', 'test', 'layers'];

interface Cruise {
  readonly modules: readonly { readonly source: string }[];
  readonly summary: {
    readonly violations: readonly {
      readonly from: string;
      readonly to: string;
      readonly rule: { readonly name: string };
    }[];
  };
}

function cruise(folder: string, parts: readonly string[]): Cruise {
  const run = spawnSync(
    process.execPath,
    [cruiser, '--config', settingsFile, '--output-type', 'json', ...parts],
    { cwd: folder, encoding: 'utf8', maxBuffer: 1e9 },
  );
  if (run.stdout === '') throw new Error(`dependency-cruiser failed: ${run.stderr}`);
  return JSON.parse(run.stdout) as Cruise;
}

function typescriptFiles(folder: string): string[] {
  const found: string[] = [];
  const walk = (path: string) => {
    for (const entry of readdirSync(path, { withFileTypes: true })) {
      if (entry.name === 'node_modules' || entry.name.startsWith('.') || entry.name === 'cdk.out') continue;
      const inner = join(path, entry.name);
      if (entry.isDirectory()) walk(inner);
      else if (/\.ts$/.test(entry.name)) found.push(relative(root, inner));
    }
  };
  walk(folder);
  return found;
}

const present = sourceFolders.filter((name) =>
  statSync(join(root, name), { throwIfNoEntry: false })?.isDirectory(),
);

describe('the code', () => {
  const seen = cruise(root, present);

  it('keeps every rule', () => {
    expect(seen.summary.violations.map(({ from, to, rule }) => `${rule.name}: ${from} -> ${to}`)).toEqual([]);
  });

  it('is seen whole: as many modules as there are files', () => {
    const modules = seen.modules
      .map(({ source }) => source)
      .filter((source) => source.endsWith('.ts') && !source.includes('node_modules/'));
    // AssemblyScript is another language in files of the same name; its compiler resolves its imports.
    const files = present
      .flatMap((folder) => typescriptFiles(join(root, folder)))
      .filter((file) => !file.startsWith('functions/core/vectors/kernel/assembly/'));
    expect(modules.sort()).toEqual(files.sort());
    expect(files.length).toBeGreaterThan(150);
  });

  it('has a rule for each noun', () => {
    const nouns = readdirSync(join(root, 'functions/core/resources'), { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name);
    const ruled = forbidden
      .filter(({ name }) => name.startsWith('slice-'))
      .map(({ name }) => name.slice('slice-'.length));
    expect(ruled.sort()).toEqual(nouns.sort());
  });

  it("calls users' addresses from one place: no bare fetch in the Lambdas", () => {
    const bare = typescriptFiles(join(root, 'functions')).filter(
      (file) =>
        !/core\/(egress|labels)\//.test(file) &&
        /(?<![\w.])fetch\(/.test(
          readFileSync(join(root, file), 'utf8').replace(/\/\/.*|\/\*[\s\S]*?\*\//g, ''),
        ),
    );
    expect(bare).toEqual([]);
  });
});

const resources = 'functions/core/resources';

/** Rule -> imports that break it, as [file, what it imports]. */
const planted: Readonly<Record<string, readonly (readonly [from: string, to: string])[]>> = {
  'core-stands-alone': [
    ['functions/core/a1.ts', 'functions/api/index.ts'],
    ['functions/core/store/a2.ts', 'infra/stage.ts'],
    ['functions/core/http/a3.ts', 'test/http/app.ts'],
    [`${resources}/tasks/a4.ts`, 'local/run.ts'],
    ['functions/core/vectors/a5.ts', 'bench/run.ts'],
    ['functions/core/a6.ts', 'cli/main.ts'],
  ],
  'lambdas-apart': [['functions/relay/b1.ts', 'functions/deliver/index.ts']],
  'lambdas-without-tools': [
    ['functions/api/c1.ts', 'infra/stage.ts'],
    ['functions/api/c2.ts', 'local/run.ts'],
  ],
  'infra-reads-contracts': [
    ['infra/d1.ts', 'functions/core/store/table.ts'],
    ['infra/d2.ts', `${resources}/buckets/contract.ts`],
    ['infra/d3.ts', 'functions/api/index.ts'],
    ['infra/d4.ts', 'functions/core/http/dispatch.ts'],
  ],
  'infra-without-tools': [
    ['infra/e1.ts', 'local/run.ts'],
    ['infra/e2.ts', 'test/http/app.ts'],
  ],
  'clients-read-contracts': [
    ['cli/f1.ts', `${resources}/buckets/service.ts`],
    ['console/f2.ts', 'infra/stage.ts'],
    ['cli/f3.ts', 'functions/core/context.ts'],
  ],
  'engines-are-pure': [
    ['functions/core/vectors/g1.ts', 'functions/core/store/table.ts'],
    ['functions/core/retrieval/g2.ts', 'functions/core/http/route.ts'],
    ['functions/core/conditions/g3.ts', 'functions/core/aws/s3.ts'],
    ['functions/core/retrieval/g4.ts', `${resources}/buckets/contract.ts`],
    ['functions/core/vectors/g5.ts', '@aws-sdk/client-s3'],
  ],
  'backends-keep-copies': [
    ['functions/core/backends/o1.ts', 'functions/core/aws/s3-vectors.ts'],
    ['functions/core/backends/o2.ts', 'functions/core/http/route.ts'],
    ['functions/core/backends/o3.ts', '@aws-sdk/client-s3vectors'],
  ],
  'index-knows-no-backends': [
    ['functions/core/store/p1.ts', 'functions/core/backends/registry.ts'],
    ['functions/core/vectors/p2.ts', 'functions/core/backends/query.ts'],
  ],
  'contracts-are-data': [
    [`${resources}/keys/contract.ts`, 'functions/core/store/table.ts'],
    [`${resources}/keys/contract.ts`, 'functions/core/aws/s3.ts'],
    [`${resources}/keys/contract.ts`, `${resources}/keys/service.ts`],
    [`${resources}/keys/contract.ts`, `${resources}/keys/store.ts`],
    [`${resources}/keys/contract.ts`, `${resources}/keys/handlers.ts`],
    [`${resources}/keys/contract.ts`, '@aws-sdk/client-s3'],
  ],
  'handlers-call-services': [
    [`${resources}/buckets/handlers.ts`, `${resources}/buckets/store.ts`],
    [`${resources}/buckets/handlers.ts`, 'functions/core/aws/s3.ts'],
    [`${resources}/buckets/handlers.ts`, 'functions/core/store/table.ts'],
  ],
  'services-know-no-http': [
    [`${resources}/buckets/service.ts`, 'functions/core/http/dispatch.ts'],
    [`${resources}/batches/workflow.ts`, 'functions/core/http/handler.ts'],
    [`${resources}/buckets/service.ts`, `${resources}/buckets/handlers.ts`],
    [`${resources}/batches/chunk.ts`, 'functions/core/http/route.ts'],
    [`${resources}/alerts/store.ts`, 'functions/core/http/schemas.ts'],
  ],
  'stores-know-no-rules': [
    [`${resources}/alerts/store.ts`, `${resources}/alerts/service.ts`],
    [`${resources}/alerts/store.ts`, `${resources}/alerts/workflow.ts`],
  ],
  'core-parts-know-no-resources': [
    ['functions/core/store/h1.ts', `${resources}/buckets/service.ts`],
    ['functions/core/http/h2.ts', `${resources}/contracts.ts`],
    ['functions/core/h3.ts', `${resources}/handlers.ts`],
  ],
  'aws-in-one-place': [
    ['functions/core/store/i1.ts', '@aws-sdk/client-dynamodb'],
    ['functions/relay/i2.ts', '@aws-sdk/util-dynamodb'],
    [`${resources}/plugins/i3.ts`, '@aws-sdk/s3-request-presigner'],
  ],
  'one-way-out': [
    ['functions/core/http/j1.ts', 'node:https'],
    [`${resources}/objects/j2.ts`, 'node:http'],
    ['functions/deliver/j3.ts', 'node:net'],
    ['functions/core/aws/j4.ts', 'node:tls'],
  ],
  'document-at-build-time': [
    ['functions/api/k1.ts', 'functions/core/http/openapi.ts'],
    [`${resources}/service/k2.ts`, 'functions/core/http/openapi-errors.ts'],
    ['functions/core/http/k3.ts', 'zod-openapi'],
  ],
  'no-cycles': [
    ['functions/core/vectors/l1.ts', 'functions/core/vectors/l2.ts'],
    ['functions/core/vectors/l2.ts', 'functions/core/vectors/l1.ts'],
  ],
  resolvable: [['infra/m1.ts', 'infra/nowhere.ts']],
  'slice-namespaces': [
    [`${resources}/namespaces/n1.ts`, `${resources}/buckets/service.ts`],
    [`${resources}/namespaces/n2.ts`, `${resources}/batches/store.ts`],
  ],
  'slice-keys': [[`${resources}/keys/n1.ts`, `${resources}/namespaces/service.ts`]],
  'slice-secrets': [[`${resources}/secrets/n1.ts`, `${resources}/plugins/service.ts`]],
  'slice-plugins': [
    [`${resources}/plugins/n1.ts`, `${resources}/collections/service.ts`],
    [`${resources}/plugins/n2.ts`, `${resources}/secrets/store.ts`],
  ],
  'slice-buckets': [[`${resources}/buckets/n1.ts`, `${resources}/objects/service.ts`]],
  'slice-objects': [
    [`${resources}/objects/n1.ts`, `${resources}/buckets/store.ts`],
    [`${resources}/objects/n2.ts`, `${resources}/uploads/service.ts`],
    [`${resources}/objects/n3.ts`, `${resources}/webhooks/deliver.ts`],
  ],
  'slice-uploads': [
    [`${resources}/uploads/n1.ts`, `${resources}/objects/store.ts`],
    [`${resources}/uploads/n2.ts`, `${resources}/collections/service.ts`],
  ],
  'slice-collections': [
    [`${resources}/collections/n1.ts`, `${resources}/plugins/store.ts`],
    [`${resources}/collections/n2.ts`, `${resources}/batches/service.ts`],
  ],
  'slice-documents': [
    [`${resources}/documents/n1.ts`, `${resources}/collections/store.ts`],
    [`${resources}/documents/n2.ts`, `${resources}/retrievers/service.ts`],
  ],
  'slice-batches': [
    [`${resources}/batches/n1.ts`, `${resources}/taxonomies/service.ts`],
    [`${resources}/batches/n2.ts`, `${resources}/objects/check.ts`],
  ],
  'slice-tasks': [[`${resources}/tasks/n1.ts`, `${resources}/batches/service.ts`]],
  'slice-retrievers': [[`${resources}/retrievers/n1.ts`, `${resources}/taxonomies/service.ts`]],
  'slice-taxonomies': [
    [`${resources}/taxonomies/n1.ts`, `${resources}/batches/service.ts`],
    [`${resources}/taxonomies/n2.ts`, `${resources}/retrievers/embed.ts`],
  ],
  'slice-clusters': [[`${resources}/clusters/n1.ts`, `${resources}/alerts/service.ts`]],
  'slice-alerts': [
    [`${resources}/alerts/n1.ts`, `${resources}/webhooks/store.ts`],
    [`${resources}/alerts/n2.ts`, `${resources}/clusters/service.ts`],
  ],
  'slice-webhooks': [[`${resources}/webhooks/n1.ts`, `${resources}/objects/service.ts`]],
  'slice-transfers': [
    [`${resources}/transfers/n1.ts`, `${resources}/batches/service.ts`],
    [`${resources}/transfers/n2.ts`, `${resources}/documents/store.ts`],
  ],
  'slice-service': [[`${resources}/service/n1.ts`, `${resources}/keys/service.ts`]],
};

/** Imports that are fine; a rule that refused them would be too wide. */
const allowed: readonly (readonly [from: string, to: string])[] = [
  ['functions/api/z1.ts', 'functions/core/http/dispatch.ts'],
  ['functions/api/z1.ts', `${resources}/handlers.ts`],
  ['infra/z2.ts', 'functions/core/env.ts'],
  ['infra/z2.ts', `${resources}/contracts.ts`],
  ['cli/z3.ts', `${resources}/buckets/contract.ts`],
  ['cli/z9.ts', `${resources}/plugins/archive.ts`],
  ['functions/core/aws/z4.ts', '@aws-sdk/client-s3'],
  ['functions/core/egress/z5.ts', 'node:https'],
  ['functions/core/backends/z8.ts', 'functions/core/store/open-index.ts'],
  ['functions/core/aws/lance.ts', 'functions/core/backends/backend.ts'],
  [`${resources}/namespaces/contract.ts`, 'functions/core/backends/registry.ts'],
  [`${resources}/plugins/handlers.ts`, 'functions/core/http/handler.ts'],
  [`${resources}/plugins/handlers.ts`, `${resources}/plugins/service.ts`],
  [`${resources}/plugins/service.ts`, 'functions/core/http/version.ts'],
  [`${resources}/plugins/service.ts`, `${resources}/plugins/store.ts`],
  [`${resources}/plugins/service.ts`, 'functions/core/store/table.ts'],
  [`${resources}/objects/service.ts`, `${resources}/buckets/service.ts`],
  [`${resources}/objects/service.ts`, `${resources}/buckets/contract.ts`],
  [`${resources}/alerts/evaluate.ts`, `${resources}/retrievers/execute.ts`],
  ['functions/core/retrieval/z6.ts', 'functions/core/conditions/index.ts'],
  ['test/z7.ts', 'functions/core/store/memory.ts'],
];

describe('a planted violation', () => {
  let folder: string;
  let found: Cruise;

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'granary-imports-'));
    const files = new Map<string, string[]>();
    const lines = (file: string) => {
      const known = files.get(file) ?? [];
      files.set(file, known);
      return known;
    };
    for (const [from, to] of [...Object.values(planted).flat(), ...allowed]) {
      const isFile = to.endsWith('.ts');
      let path = isFile ? relative(dirname(from), to) : to;
      if (isFile && !path.startsWith('.')) path = `./${path}`;
      lines(from).push(`import '${path}';`);
      if (isFile && !to.endsWith('nowhere.ts')) lines(to);
    }
    for (const [file, imports] of files) {
      mkdirSync(join(folder, dirname(file)), { recursive: true });
      writeFileSync(join(folder, file), `${imports.join('\n')}\nexport {};\n`);
    }
    writeFileSync(join(folder, 'tsconfig.json'), readFileSync(join(root, 'tsconfig.json')));
    writeFileSync(join(folder, 'package.json'), '{"type":"module"}');
    symlinkSync(join(root, 'node_modules'), join(folder, 'node_modules'));
    found = cruise(
      folder,
      readdirSync(folder).filter(
        (name) => statSync(join(folder, name)).isDirectory() && name !== 'node_modules',
      ),
    );
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const matches = (to: string, seen: string) =>
    seen === to || seen === to.replace('node:', '') || (!to.endsWith('.ts') && seen.includes(to));

  it('is there for every rule', () => {
    expect(Object.keys(planted).sort()).toEqual(forbidden.map(({ name }) => name).sort());
  });

  it.each(Object.entries(planted))('of %s is found', (rule, imports) => {
    const caught = found.summary.violations.filter((violation) => violation.rule.name === rule);
    for (const [from, to] of imports) {
      const hit = caught.some((violation) => {
        // A cycle is reported once, from whichever end was read first.
        if (rule === 'no-cycles')
          return [from, to].includes(violation.from) && [from, to].includes(violation.to);
        return (
          violation.from === from &&
          (rule === 'resolvable' ? violation.to.includes('nowhere') : matches(to, violation.to))
        );
      });
      expect(hit, `${from} -> ${to}`).toBe(true);
    }
  });

  it.each(allowed)('is none: %s may import %s', (from, to) => {
    expect(
      found.summary.violations.filter((violation) => violation.from === from && matches(to, violation.to)),
    ).toEqual([]);
  });
});
