// The clustering algorithms and their parameters, as requests may name them. The clusterer checks by a list of its own
// (functions/clusterer/algorithms/parameters.json); a test keeps the two equal.
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
  readonly default: string;
}
interface FlagRule {
  readonly type: 'boolean';
  readonly default: boolean;
}
export type ParameterRule = NumberRule | TextRule | FlagRule;

/** Algorithm -> parameter -> what it may be. */
export const algorithmParameters: Readonly<Record<string, Readonly<Record<string, ParameterRule>>>> = {
  hdbscan: {
    min_cluster_size: { type: 'integer', minimum: 2, maximum: 100_000, default: 5 },
    min_samples: { type: 'integer', nullable: true, minimum: 1, maximum: 100_000, default: null },
    max_cluster_size: { type: 'integer', nullable: true, minimum: 2, maximum: 5_000_000, default: null },
    cluster_selection_epsilon: { type: 'number', minimum: 0, maximum: 1_000_000, default: 0 },
    cluster_selection_method: { type: 'string', enum: ['eom', 'leaf'], default: 'eom' },
    alpha: { type: 'number', exclusive_minimum: 0, maximum: 1000, default: 1 },
    allow_single_cluster: { type: 'boolean', default: false },
    metric: { type: 'string', enum: ['euclidean'], default: 'euclidean' },
  },
  kmeans: {
    n_clusters: { type: 'integer', minimum: 2, maximum: 1000, default: 8 },
    n_init: { type: 'integer', minimum: 1, maximum: 100, default: 10 },
    max_iter: { type: 'integer', minimum: 1, maximum: 10_000, default: 300 },
    tol: { type: 'number', exclusive_minimum: 0, maximum: 1, default: 0.0001 },
    random_state: { type: 'integer', nullable: true, minimum: 0, maximum: 4_294_967_295, default: null },
  },
};

export const algorithmNames = Object.keys(algorithmParameters);

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
  if (rule.type === 'string') return `one of ${rule.enum.join(', ')}`;
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
  if (rule.type === 'string') return typeof value === 'string' && rule.enum.includes(value);
  if (rule.type === 'boolean') return typeof value === 'boolean';
  if (value === null) return rule.nullable === true;
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
        fix: `one of: ${algorithmNames.join(', ')}`,
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
  return faults;
}
