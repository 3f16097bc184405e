// A retriever's definition: every spelling of stages in, one checked form out, all faults at once.
import { type Fault, faultsOfZod, isObject, kindOf, throwFaults, under } from './faults.ts';
import { type InputField, type InputSchema, readInputSchema } from './inputs.ts';
import { findStage, stageIds } from './stages/index.ts';
import type { Stage } from './stages/stage.ts';
import { checkTemplates, type TemplateReference } from './template.ts';

/** Stages of one retriever (api rules, section 12). */
export const stagesMax = 10;

export const stageTypes = ['filter', 'sort', 'reduce', 'apply', 'enrich'] as const;

/** A stage as it is stored and answered. */
export interface StageConfig {
  readonly stage_name: string;
  readonly stage_type: (typeof stageTypes)[number];
  readonly config: { readonly stage_id: string; readonly parameters: unknown };
  readonly description?: string;
}

/** A checked retriever; safe to store as JSON and to run again. */
export interface RetrieverDefinition {
  readonly stages: readonly StageConfig[];
  /** The declared inputs, and those that templates use without a declaration. */
  readonly input_schema: InputSchema;
  /** Names of the inputs that templates use, sorted. */
  readonly input_names: readonly string[];
  /** The features that are searched, each once, in order. */
  readonly feature_uris: readonly string[];
}

const configKeys = ['stage_name', 'stage_type', 'config', 'description'];

interface ReadStage {
  readonly config: StageConfig;
  readonly stage: Stage;
  readonly references: readonly TemplateReference[];
}

function readStage(value: unknown, index: number, faults: Fault[]): ReadStage | undefined {
  const at = ['stages', index];
  const wrong = (path: (string | number)[], message: string, fix?: string, type = 'value_error') => {
    faults.push(
      fix === undefined
        ? { type, path: [...at, ...path], message }
        : { type, path: [...at, ...path], message, fix },
    );
  };
  const form = '{"stage_name": "search", "config": {"stage_id": "feature_search", "parameters": {…}}}';
  if (!isObject(value)) {
    wrong([], `expected an object, got ${kindOf(value)}`, `write ${form}`);
    return undefined;
  }
  // Some clients write stage_id and parameters beside the name, without `config`.
  const flat = value.config === undefined && value.stage_id !== undefined;
  const accepted = flat ? ['stage_name', 'stage_type', 'description', 'stage_id', 'parameters'] : configKeys;
  for (const key of Object.keys(value)) {
    if (accepted.includes(key)) continue;
    wrong([key], `unknown key "${key}"; accepted are ${accepted.join(', ')}`, undefined, 'extra_forbidden');
  }
  const { stage_name, stage_type, description } = value;
  if (typeof stage_name !== 'string' || stage_name.length < 1 || stage_name.length > 100) {
    const got = typeof stage_name === 'string' ? `${stage_name.length} characters` : kindOf(stage_name);
    const fault = stage_name === undefined ? 'missing' : 'value_error';
    wrong(['stage_name'], `expected a name of 1 to 100 characters, got ${got}`, `write ${form}`, fault);
  }
  if (['__proto__', 'constructor', 'prototype'].includes(String(stage_name))) {
    wrong(['stage_name'], 'this cannot be the name of a stage');
  }
  const type = stageTypes.find((candidate) => candidate === stage_type);
  if (stage_type !== undefined && stage_type !== null && type === undefined) {
    wrong(['stage_type'], `expected one of ${stageTypes.join(', ')}`);
  }
  if (description !== undefined && description !== null && typeof description !== 'string') {
    wrong(['description'], `expected a text, got ${kindOf(description)}`);
  }
  const config = flat ? { stage_id: value.stage_id, parameters: value.parameters } : value.config;
  const below = flat ? [] : ['config'];
  if (!isObject(config)) {
    wrong(['config'], `expected {stage_id, parameters}, got ${kindOf(config)}`, `write ${form}`);
    return undefined;
  }
  for (const key of Object.keys(config)) {
    if (key === 'stage_id' || key === 'parameters') continue;
    wrong(
      ['config', key],
      `unknown key "${key}"; accepted are stage_id, parameters`,
      undefined,
      'extra_forbidden',
    );
  }
  const stage = typeof config.stage_id === 'string' ? findStage(config.stage_id) : undefined;
  if (!stage) {
    const fix = `use one of ${stageIds.join(', ')}`;
    const message =
      typeof config.stage_id === 'string'
        ? `there is no stage ${JSON.stringify(config.stage_id.slice(0, 60))}`
        : `expected the id of a stage, got ${kindOf(config.stage_id)}`;
    wrong([...below, 'stage_id'], message, fix, 'stage_unknown');
    return undefined;
  }
  const path = [...at, ...below, 'parameters'];
  const parsed = stage.parameters.safeParse(config.parameters ?? {});
  if (!parsed.success) {
    const own = faultsOfZod(parsed.error, config.parameters ?? {});
    const places = new Set(own.map((fault) => fault.path.join('.')));
    const { faults: inTemplates } = checkTemplates(config.parameters, stage.roots(index === 0));
    const others = inTemplates.filter((fault) => !places.has(fault.path.join('.')));
    faults.push(...under(path, [...own, ...others]));
    return undefined;
  }
  const templates = checkTemplates(parsed.data, stage.roots(index === 0));
  faults.push(...under(path, [...templates.faults, ...stage.check(parsed.data)]));
  // Empty where it is wrong, which is reported above.
  const name = typeof stage_name === 'string' ? stage_name : '';
  return {
    stage,
    references: templates.references.map((reference) => {
      const lacking = stage.mayLack?.(parsed.data, reference.path) ?? false;
      return { ...reference, has_default: reference.has_default || lacking };
    }),
    config: {
      stage_name: name,
      stage_type: type ?? stage.category,
      config: { stage_id: stage.stage_id, parameters: parsed.data },
      ...(typeof description === 'string' ? { description } : {}),
    },
  };
}

/** Inputs that templates use: a text where it is a query's text, anything otherwise. */
function usedInputs(stages: readonly ReadStage[]): Map<string, InputField> {
  const used = new Map<string, InputField>();
  for (const { root, name, path, has_default } of stages.flatMap(({ references }) => references)) {
    if (root !== 'INPUT') continue;
    const isText = path.at(-1) === 'text' && path.at(-2) === 'query';
    const known = used.get(name);
    used.set(name, {
      type: isText || known?.type === 'string' ? 'string' : 'any',
      required: !has_default || known?.required === true,
    });
  }
  return used;
}

/**
 * Reads the stages and inputs of a create or ad hoc request.
 *
 * Everything that can be known without a run is checked: stage ids, parameters, feature URIs, templates and their
 * roots, condition trees. Whether a feature exists is not asked: a collection may come later.
 *
 * @returns the definition, absent when there are faults; paths begin with `stages` or `input_schema`
 */
export function readDefinition(body: { readonly stages?: unknown; readonly input_schema?: unknown }): {
  definition?: RetrieverDefinition;
  faults: Fault[];
} {
  const faults: Fault[] = [];
  const { schema, faults: schemaFaults } = readInputSchema(body.input_schema, ['input_schema']);
  faults.push(...schemaFaults);
  if (!Array.isArray(body.stages) || body.stages.length < 1 || body.stages.length > stagesMax) {
    const got = Array.isArray(body.stages) ? `${body.stages.length} stages` : kindOf(body.stages);
    faults.push({
      type: 'value_error',
      path: ['stages'],
      message: `expected a list of 1 to ${stagesMax} stages, got ${got}`,
    });
    return { faults };
  }
  const read = body.stages.map((value, index) => readStage(value, index, faults));
  const earlier = new Set<string>();
  read.forEach((stage, index) => {
    if (!stage) return;
    const { stage_name } = stage.config;
    if (stage_name !== '' && earlier.has(stage_name)) {
      const message = `another stage is named ${JSON.stringify(stage_name)}; names must differ`;
      faults.push({ type: 'value_error', path: ['stages', index, 'stage_name'], message });
    }
    for (const { root, name, path } of stage.references) {
      if (root !== 'STAGE' || earlier.has(name)) continue;
      const message = `STAGE.${name} is not an earlier stage`;
      faults.push({
        type: 'template_unknown_variable',
        path: ['stages', index, 'config', 'parameters', ...path],
        message,
      });
    }
    earlier.add(stage_name);
  });
  const [first] = read;
  if (first && !first.stage.canStart) {
    const message = `${first.stage.stage_id} cannot be the first stage: there are no documents yet`;
    const fix = 'begin with feature_search or attribute_filter';
    faults.push({ type: 'stage_order', path: ['stages', 0], message, fix });
  }
  if (faults.length > 0) return { faults };
  const stages = read.filter((stage) => stage !== undefined);
  const used = usedInputs(stages);
  const undeclared = [...used].filter(([name]) => !Object.hasOwn(schema, name));
  return {
    faults,
    definition: {
      stages: stages.map(({ config }) => config),
      input_schema: { ...schema, ...Object.fromEntries(undeclared) },
      input_names: [...used.keys()].sort(),
      feature_uris: [
        ...new Set(stages.flatMap(({ stage, config }) => stage.featureUris(config.config.parameters))),
      ],
    },
  };
}

/** As `readDefinition`. @throws AppError retriever_invalid with every fault */
export function defineRetriever(body: {
  readonly stages?: unknown;
  readonly input_schema?: unknown;
}): RetrieverDefinition {
  const { definition, faults } = readDefinition(body);
  throwFaults('retriever_invalid', faults);
  if (!definition) throw new Error('a definition without faults was not read');
  return definition;
}
