// The clustering algorithms and their parameters, as requests may name them: the clusterer's own tables, which are data.
import ignored from '../../../clusterer/algorithms/ignored.json' with { type: 'json' };
import parameters from '../../../clusterer/algorithms/parameters.json' with { type: 'json' };
import type { FieldFault } from '../../errors.ts';

interface NumberRule {
  readonly type: 'integer' | 'number';
  readonly minimum?: number;
  readonly maximum?: number;
  readonly exclusive_minimum?: number;
  readonly nullable?: boolean;
  readonly default: number | null;
}
interface TextRule {
  readonly type: 'string';
  readonly enum: readonly string[];
  readonly nullable?: boolean;
  readonly default: string | null;
}
interface FlagRule {
  readonly type: 'boolean';
  readonly default: boolean;
}
export type ParameterRule = NumberRule | TextRule | FlagRule;

/** Algorithm -> parameter -> what it may be. */
export const algorithmParameters = parameters as unknown as Readonly<
  Record<string, Readonly<Record<string, ParameterRule>>>
>;

/** Algorithm -> parameters that clients send and that change no result here; they are named in a warning. */
const ignoredParameters = ignored as Readonly<Record<string, readonly string[]>>;

/** Those that group vectors. */
export const algorithmNames = Object.keys(algorithmParameters);

/** What a definition names to group by the values of fields. */
export const attributeAlgorithm = 'attribute_based';

/** The parameters without those that change nothing, and the names of the latter. */
export function withoutIgnored<T>(
  name: string,
  params: Readonly<Record<string, T>>,
): { readonly params: Readonly<Record<string, T>>; readonly ignored: readonly string[] } {
  const list = Object.hasOwn(ignoredParameters, name) ? ignoredParameters[name]! : [];
  const isIgnored = (parameter: string) =>
    list.includes(parameter) && !Object.hasOwn(algorithmParameters[name] ?? {}, parameter);
  return {
    params: Object.fromEntries(Object.entries(params).filter(([parameter]) => !isIgnored(parameter))),
    ignored: Object.keys(params).filter(isIgnored),
  };
}

/** What people write for a parameter that has another name here. */
const otherNames: Readonly<Record<string, string>> = {
  k: 'n_clusters',
  num_clusters: 'n_clusters',
  min_size: 'min_cluster_size',
  epsilon: 'cluster_selection_epsilon',
  max_iterations: 'max_iter',
  seed: 'random_state',
};

/** What a rule accepts, in words: `a whole number from 2 to 100000`. */
export function wanted(rule: ParameterRule): string {
  if (rule.type === 'string') return `one of ${rule.enum.join(', ')}${rule.nullable ? ' or null' : ''}`;
  if (rule.type === 'boolean') return 'true or false';
  const from =
    rule.minimum !== undefined
      ? ` from ${rule.minimum}`
      : rule.exclusive_minimum !== undefined
        ? ` above ${rule.exclusive_minimum}`
        : '';
  const to = rule.maximum !== undefined ? ` to ${rule.maximum}` : '';
  return `a ${rule.type === 'integer' ? 'whole number' : 'number'}${from}${to}${rule.nullable ? ' or null' : ''}`;
}

function fits(rule: ParameterRule, value: unknown): boolean {
  if (rule.type === 'boolean') return typeof value === 'boolean';
  if (value === null) return rule.nullable === true;
  if (rule.type === 'string') return typeof value === 'string' && rule.enum.includes(value);
  if (typeof value !== 'number' || !Number.isFinite(value)) return false;
  if (rule.type === 'integer' && !Number.isInteger(value)) return false;
  if (rule.minimum !== undefined && value < rule.minimum) return false;
  if (rule.exclusive_minimum !== undefined && value <= rule.exclusive_minimum) return false;
  return rule.maximum === undefined || value <= rule.maximum;
}

function shown(value: unknown): string {
  return (JSON.stringify(value) ?? 'nothing').slice(0, 80);
}

/**
 * Everything that is wrong with an algorithm and its parameters.
 *
 * @param at where the name and the parameters stand in the request
 */
export function algorithmFaults(
  name: string,
  params: Readonly<Record<string, unknown>>,
  at: { readonly name: readonly (string | number)[]; readonly params: readonly (string | number)[] },
): FieldFault[] {
  const rules = Object.hasOwn(algorithmParameters, name) ? algorithmParameters[name] : undefined;
  if (!rules) {
    return [
      {
        type: 'algorithm_unknown',
        location: at.name,
        message: `there is no algorithm "${name.slice(0, 60)}"`,
        fix: `one of: ${[...algorithmNames, attributeAlgorithm].join(', ')}`,
      },
    ];
  }
  const faults: FieldFault[] = [];
  for (const [parameter, value] of Object.entries(params)) {
    const location = [...at.params, parameter];
    const rule = Object.hasOwn(rules, parameter) ? rules[parameter] : undefined;
    if (!rule) {
      const meant = Object.hasOwn(otherNames, parameter) ? otherNames[parameter]! : undefined;
      faults.push({
        type: 'parameter_unknown',
        location,
        message: `${name} has no parameter "${parameter.slice(0, 60)}"`,
        fix:
          meant !== undefined && Object.hasOwn(rules, meant)
            ? `write "${meant}"`
            : `its parameters: ${Object.keys(rules).join(', ')}`,
      });
    } else if (!fits(rule, value)) {
      faults.push({
        type: 'parameter_wrong',
        location,
        message: `${parameter} must be ${wanted(rule)}, got ${shown(value)}`,
      });
    }
  }
  return faults.length > 0 ? faults : contradictions(name, params, at.params);
}

/** Parameters that are right each by itself and wrong together. */
function contradictions(
  name: string,
  params: Readonly<Record<string, unknown>>,
  at: readonly (string | number)[],
): FieldFault[] {
  if (name !== 'hdbscan') return [];
  const largest = params.max_cluster_size;
  const smallest = params.min_cluster_size ?? algorithmParameters.hdbscan!.min_cluster_size!.default;
  if (typeof largest !== 'number' || typeof smallest !== 'number' || largest >= smallest) return [];
  return [
    {
      type: 'parameter_wrong',
      location: [...at, 'max_cluster_size'],
      message: `max_cluster_size must be at least min_cluster_size, ${smallest}, got ${largest}`,
      fix: 'raise it, lower min_cluster_size, or leave it out',
    },
  ];
}
