// Reads the templates of a synthesised CDK app.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

export interface TemplateResource {
  Type: string;
  Properties?: Record<string, unknown>;
}

export interface SynthesisedStack {
  stackName: string;
  /** Logical id to resource. */
  resources: Map<string, TemplateResource>;
}

interface Manifest {
  artifacts: Record<
    string,
    { type: string; properties?: { templateFile?: string; stackName?: string } } | undefined
  >;
}

/**
 * The stacks in a cloud assembly folder.
 *
 * @param outDir where the synth wrote `manifest.json`
 */
export function readAssembly(outDir: string): SynthesisedStack[] {
  const manifest = JSON.parse(readFileSync(join(outDir, 'manifest.json'), 'utf8')) as Manifest;
  return Object.entries(manifest.artifacts).flatMap(([id, artifact]) => {
    const file = artifact?.properties?.templateFile;
    if (artifact?.type !== 'aws:cloudformation:stack' || file === undefined) return [];
    const template = JSON.parse(readFileSync(join(outDir, file), 'utf8')) as {
      Resources?: Record<string, TemplateResource>;
    };
    const stackName = artifact.properties?.stackName ?? id;
    return [{ stackName, resources: new Map(Object.entries(template.Resources ?? {})) }];
  });
}

/** The resources of one type with their logical ids. */
export function resourcesOfType(stack: SynthesisedStack, type: string): [string, TemplateResource][] {
  return [...stack.resources].filter(([, resource]) => resource.Type === type);
}
