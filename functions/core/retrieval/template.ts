// Templates such as {{INPUT.query | default("news")}} inside retriever parameters: parse, check, resolve.
//
// One linear pass over the strings of an already parsed tree. What a template yields is never scanned again, only own
// properties are followed, and nothing is evaluated, so hostile input can neither run code nor reach a prototype.
import { type Fault, isObject, kindOf, type Path } from './faults.ts';

/** What a template may start with. `INPUT` the request's inputs, `DOC` the document at hand, `STAGE` earlier stages. */
export const templateRoots = ['INPUT', 'DOC', 'CONTEXT', 'STAGE', 'SECRET'] as const;
export type TemplateRoot = (typeof templateRoots)[number];

/** Values by root; a root that is left out has no variables. */
export type TemplateScope = Partial<Record<TemplateRoot, unknown>>;

const filterNames = ['default', 'lower', 'upper', 'tojson', 'length'] as const;
type FilterName = (typeof filterNames)[number];
type Literal = string | number | boolean | null;

interface FilterCall {
  readonly name: FilterName;
  readonly argument?: Literal;
}

/** One `{{…}}`. */
export interface TemplateVariable {
  readonly root: TemplateRoot;
  readonly steps: Path;
  readonly filters: readonly FilterCall[];
}

/** A string cut into literal text and variables; a string that is exactly one template has one part. */
export type Template = readonly (string | TemplateVariable)[];

const forbiddenNames: ReadonlySet<string> = new Set(['__proto__', 'constructor', 'prototype']);
/** Longest text between two pairs of braces; a name of 100 characters with a path and filters fits well. */
const expressionCharsMax = 1000;
const treeDepthMax = 64;
/** Most faults that one string reports; the rest would only repeat them. */
const faultsMax = 20;
/** Most characters that the templates of one tree may yield: a thousand references to one long input stay harmless. */
const outputCharsMax = 1_000_000;

const isNameChar = (char: string | undefined): char is string =>
  char !== undefined && !/[\s.|[\](){}'",%\\]/u.test(char);
const isSpace = (char: string | undefined): boolean => char !== undefined && /\s/u.test(char);

class ExpressionFault {
  readonly type: string;
  readonly message: string;
  readonly fix: string | undefined;

  constructor(type: string, message: string, fix?: string) {
    this.type = type;
    this.message = message;
    this.fix = fix;
  }
}

const syntax = (message: string, fix?: string) => new ExpressionFault('template_syntax', message, fix);

function parseExpression(source: string): TemplateVariable {
  let at = 0;
  const skipSpace = () => {
    while (isSpace(source[at])) at += 1;
  };
  const readName = (what: string): string => {
    const start = at;
    while (isNameChar(source[at])) at += 1;
    if (at === start) throw syntax(`expected ${what} at character ${at + 1}`);
    return source.slice(start, at);
  };
  const allowed = (name: string): string => {
    if (forbiddenNames.has(name))
      throw new ExpressionFault('template_forbidden', `the name "${name}" is not allowed`);
    return name;
  };
  const readQuoted = (): string => {
    const quote = source[at];
    const start = at;
    at += 1;
    while (at < source.length && source[at] !== quote) at += quote === '"' && source[at] === '\\' ? 2 : 1;
    if (at >= source.length)
      throw syntax(`the text that begins at character ${start + 1} has no closing quote`);
    at += 1;
    if (quote === "'") return source.slice(start + 1, at - 1);
    try {
      return JSON.parse(source.slice(start, at)) as string;
    } catch {
      throw syntax(`the text at character ${start + 1} is not a valid JSON string`);
    }
  };
  const readLiteral = (): Literal => {
    if (source[at] === '"' || source[at] === "'") return readQuoted();
    const start = at;
    while (at < source.length && /[-+.0-9A-Za-z]/.test(source[at] as string)) at += 1;
    try {
      const value: unknown = JSON.parse(source.slice(start, at));
      if (value === null || typeof value === 'boolean' || Number.isFinite(value)) return value as Literal;
    } catch {
      // Reported below, with the forms that are allowed.
    }
    throw syntax(
      `expected a literal at character ${start + 1}`,
      'use "text", \'text\', a number, true, false or null',
    );
  };

  skipSpace();
  const rootName = readName(`one of ${templateRoots.join(', ')}`);
  const root = templateRoots.find((candidate) => candidate === rootName.toUpperCase());
  if (!root) {
    const rest = source.slice(at).trim();
    const fix = /^inputs?$/i.test(rootName)
      ? `{{INPUT${rest}}}`
      : rest === ''
        ? `{{INPUT.${rootName}}}`
        : undefined;
    throw new ExpressionFault(
      'template_unknown_root',
      `unknown root "${rootName}"; a template begins with one of ${templateRoots.join(', ')}`,
      fix === undefined ? undefined : `write ${fix}`,
    );
  }
  const steps: (string | number)[] = [];
  for (;;) {
    if (source[at] === '.') {
      at += 1;
      steps.push(allowed(readName('a name')));
    } else if (source[at] === '[') {
      at += 1;
      skipSpace();
      if (source[at] === '"' || source[at] === "'") {
        steps.push(allowed(readQuoted()));
      } else {
        const digits = readName('a list position or a quoted name');
        if (!/^\d{1,9}$/.test(digits)) throw syntax(`"${digits}" is not a list position`);
        steps.push(Number(digits));
      }
      skipSpace();
      if (source[at] !== ']') throw syntax(`expected ] at character ${at + 1}`);
      at += 1;
    } else break;
  }
  if (steps.length === 0) throw syntax(`${root} needs a name`, `write {{${root}.name}}`);

  const filters: FilterCall[] = [];
  skipSpace();
  while (source[at] === '|') {
    at += 1;
    skipSpace();
    const written = readName('a filter');
    const name = filterNames.find((candidate) => candidate === written.toLowerCase());
    if (!name) {
      throw new ExpressionFault(
        'template_unknown_filter',
        `unknown filter "${written}"; there are ${filterNames.join(', ')}`,
      );
    }
    skipSpace();
    if (source[at] === '(') {
      at += 1;
      skipSpace();
      if (name !== 'default') throw syntax(`the filter ${name} takes no argument`);
      const argument = readLiteral();
      skipSpace();
      if (source[at] !== ')') throw syntax(`expected ) at character ${at + 1}`);
      at += 1;
      skipSpace();
      filters.push({ name, argument });
    } else {
      if (name === 'default') throw syntax('the filter default needs a value', 'write default("text")');
      filters.push({ name });
    }
  }
  if (at < source.length) throw syntax(`unexpected ${JSON.stringify(source[at])} at character ${at + 1}`);
  return { root, steps, filters };
}

/**
 * Cuts one string into text and variables.
 *
 * Linear in the length of the text for every input. A faulty `{{…}}` becomes a fault and the scan goes on behind it.
 *
 * @returns the parts in order, and the faults (with empty paths)
 */
export function compileTemplate(text: string): { template: Template; faults: Fault[] } {
  const parts: (string | TemplateVariable)[] = [];
  const faults: Fault[] = [];
  const fault = (type: string, message: string, fix?: string) =>
    faults.push(fix === undefined ? { type, path: [], message } : { type, path: [], message, fix });
  if (text.includes('{%')) {
    fault(
      'template_forbidden',
      'statements ({% … %}) are not supported',
      'use {{ROOT.name}} with filters only',
    );
    return { template: [], faults };
  }
  let at = 0;
  for (;;) {
    const open = text.indexOf('{{', at);
    if (open < 0) break;
    const close = text.indexOf('}}', open + 2);
    if (close < 0) {
      fault('template_syntax', `the {{ at character ${open + 1} is never closed`, 'close it with }}');
      return { template: [], faults };
    }
    if (open > at) parts.push(text.slice(at, open));
    const source = text.slice(open + 2, Math.min(close, open + 2 + expressionCharsMax + 1));
    try {
      if (source.length > expressionCharsMax) {
        throw syntax(`the template at character ${open + 1} is longer than ${expressionCharsMax} characters`);
      }
      parts.push(parseExpression(source));
    } catch (error) {
      if (!(error instanceof ExpressionFault)) throw error;
      fault(error.type, `in the template at character ${open + 1}: ${error.message}`, error.fix);
    }
    if (faults.length >= faultsMax) return { template: [], faults };
    at = close + 2;
  }
  if (at < text.length) parts.push(text.slice(at));
  return { template: parts, faults };
}

/** Whether the string holds something that looks like a template, well formed or not. */
export function hasTemplate(text: string): boolean {
  return text.includes('{{') || text.includes('{%');
}

/** Whether the string is exactly one well-formed template, so that its value may have any type. */
export function isExactTemplate(text: string): boolean {
  if (!text.startsWith('{{')) return false;
  const { template, faults } = compileTemplate(text);
  return faults.length === 0 && template.length === 1 && typeof template[0] !== 'string';
}

/** One use of a variable in a tree. */
export interface TemplateReference {
  readonly root: TemplateRoot;
  /** First name behind the root: the input's name, for `INPUT`. */
  readonly name: string;
  /** Where in the tree it stands. */
  readonly path: Path;
  /** True when a `default` filter covers its absence. */
  readonly has_default: boolean;
}

/** Calls `visit` for each string of the tree, in order; reports reserved keys and too deep trees as faults. */
function walk(tree: unknown, path: Path, faults: Fault[], visit: (text: string, path: Path) => void): void {
  if (typeof tree === 'string') visit(tree, path);
  if (typeof tree !== 'object' || tree === null) return;
  if (path.length >= treeDepthMax) {
    faults.push({ type: 'too_deep', path, message: `nested deeper than ${treeDepthMax} levels` });
    return;
  }
  for (const [key, value] of Array.isArray(tree) ? tree.entries() : Object.entries(tree)) {
    if (typeof key === 'string' && forbiddenNames.has(key)) {
      faults.push({
        type: 'template_forbidden',
        path: [...path, key],
        message: `the key "${key}" is not allowed`,
      });
    } else walk(value, [...path, key], faults, visit);
  }
}

/**
 * Checks every template of a tree without values: syntax, roots, filters, reserved names.
 *
 * @param roots which roots are allowed here; the fault names them
 * @returns references in the order of the tree, and the faults with their paths
 */
export function checkTemplates(
  tree: unknown,
  roots: readonly TemplateRoot[] = templateRoots,
): { references: TemplateReference[]; faults: Fault[] } {
  const references: TemplateReference[] = [];
  const faults: Fault[] = [];
  walk(tree, [], faults, (text, path) => {
    if (!hasTemplate(text)) return;
    const { template, faults: own } = compileTemplate(text);
    faults.push(...own.map((fault) => ({ ...fault, path })));
    for (const part of template) {
      if (typeof part === 'string') continue;
      if (!roots.includes(part.root)) {
        const use = roots.length > 0 ? `use ${roots.join(', ')}` : 'templates are not possible here';
        const message = `${part.root} has no values in this place; ${use}`;
        faults.push({ type: 'template_root_not_here', path, message });
      }
      const has_default = part.filters.some((filter) => filter.name === 'default');
      references.push({ root: part.root, name: String(part.steps[0]), path, has_default });
    }
  });
  return { references, faults };
}

const missing = Symbol('missing');

function lookUp(scope: TemplateScope, variable: TemplateVariable): unknown {
  let value: unknown = Object.hasOwn(scope, variable.root) ? scope[variable.root] : undefined;
  for (const step of variable.steps) {
    if (Array.isArray(value)) {
      const index = typeof step === 'number' ? step : /^\d{1,9}$/.test(step) ? Number(step) : -1;
      if (!Object.hasOwn(value, index)) return missing;
      value = value[index];
    } else if (isObject(value) && Object.hasOwn(value, step)) value = value[step];
    else return missing;
  }
  return value === undefined ? missing : value;
}

function writeOut(value: unknown): string {
  if (value === null) return '';
  return typeof value === 'object' ? JSON.stringify(value) : String(value);
}

function applyFilter(value: unknown, filter: FilterCall, name: string): unknown {
  if (filter.name === 'default') return value === missing || value === null ? filter.argument : value;
  if (value === missing) return missing;
  if (filter.name === 'tojson') return JSON.stringify(value);
  if (filter.name === 'length') {
    if (Array.isArray(value)) return value.length;
    if (typeof value === 'string') return Array.from(value).length;
    if (isObject(value)) return Object.keys(value).length;
    throw new ExpressionFault(
      'template_type',
      `length of ${name} needs a text, list or object, got ${kindOf(value)}`,
    );
  }
  if (typeof value !== 'string') {
    throw new ExpressionFault(
      'template_type',
      `${filter.name} of ${name} needs a text, got ${kindOf(value)}`,
    );
  }
  return filter.name === 'lower' ? value.toLowerCase() : value.toUpperCase();
}

/** How a variable is written, for messages: `INPUT.user.tags.0`. */
const nameOf = (variable: TemplateVariable) => [variable.root, ...variable.steps].join('.');

/**
 * A copy of the tree with every template replaced by its value.
 *
 * A string that is exactly one template takes the value with its type; inside text, objects are written as JSON and
 * null as nothing. A variable without a value is a fault unless `default` covers it; in `DOC` it is null instead,
 * because documents need not have every field. Values are taken as they are and never scanned for templates.
 *
 * @returns the resolved tree (only meaningful without faults) and the faults with their paths
 */
export function resolve(tree: unknown, scope: TemplateScope): { value: unknown; faults: Fault[] } {
  const faults: Fault[] = [];
  let outputChars = 0;

  const valueFor = (variable: TemplateVariable): unknown => {
    let value = lookUp(scope, variable);
    for (const filter of variable.filters) value = applyFilter(value, filter, nameOf(variable));
    if (value !== missing) return value;
    if (variable.root === 'DOC') return null;
    throw new ExpressionFault(
      'template_unknown_variable',
      `${nameOf(variable)} has no value`,
      variable.root === 'INPUT'
        ? `give inputs.${variable.steps.join('.')}, or write {{${nameOf(variable)} | default("…")}}`
        : undefined,
    );
  };

  const resolveText = (text: string, path: Path): unknown => {
    if (!hasTemplate(text)) return text;
    const { template, faults: own } = compileTemplate(text);
    faults.push(...own.map((fault) => ({ ...fault, path })));
    if (own.length > 0) return text;
    try {
      const values = template.map((part) => (typeof part === 'string' ? part : valueFor(part)));
      if (values.length === 1) return values[0];
      let out = '';
      for (const value of values) {
        out += writeOut(value);
        if (outputChars + out.length > outputCharsMax) {
          throw new ExpressionFault(
            'template_too_large',
            `templates yield more than ${outputCharsMax} characters`,
          );
        }
      }
      outputChars += out.length;
      return out;
    } catch (error) {
      if (!(error instanceof ExpressionFault)) throw error;
      const { type, message, fix } = error;
      faults.push(fix === undefined ? { type, path, message } : { type, path, message, fix });
      return text;
    }
  };

  const copy = (node: unknown, path: Path): unknown => {
    if (typeof node === 'string') return resolveText(node, path);
    if (typeof node !== 'object' || node === null) return node;
    if (path.length >= treeDepthMax) {
      faults.push({ type: 'too_deep', path, message: `nested deeper than ${treeDepthMax} levels` });
      return node;
    }
    if (Array.isArray(node)) return node.map((item, index) => copy(item, [...path, index]));
    const out: Record<string, unknown> = {};
    for (const [key, value] of Object.entries(node)) {
      if (forbiddenNames.has(key)) {
        faults.push({
          type: 'template_forbidden',
          path: [...path, key],
          message: `the key "${key}" is not allowed`,
        });
      } else out[key] = copy(value, [...path, key]);
    }
    return out;
  };

  return { value: copy(tree, []), faults };
}
