// Random documents, conditions and commits, and the naive answers that the vector store must reproduce.
import fc from 'fast-check';

export type Json = string | number | boolean | null | Json[] | { [key: string]: Json };
export type Document = { [key: string]: Json };

const texts = [
  '',
  'a',
  'A',
  'b',
  'ab',
  'Straße',
  'STRASSE',
  'ΣΑΣ',
  'σας',
  'İ',
  'i\u0307',
  'é',
  'É',
  'red fox',
  'Fox, RED!',
  '10',
  '量子',
  'x y',
];
const numbers = [0, 1, -1, 2.5, 10, 1e300, -1e-300, 16_777_217];

export const scalar: fc.Arbitrary<string | number | boolean | null> = fc.oneof(
  fc.constantFrom(...texts),
  fc.constantFrom(...numbers),
  fc.boolean(),
  fc.constant(null),
);

const value: fc.Arbitrary<Json> = fc.oneof(
  { weight: 6, arbitrary: scalar },
  { weight: 2, arbitrary: fc.array(scalar, { maxLength: 3 }) },
  { weight: 1, arbitrary: fc.record({ x: scalar, y: scalar }, { requiredKeys: [] }) },
  { weight: 1, arbitrary: fc.array(fc.record({ x: scalar }, { requiredKeys: [] }), { maxLength: 2 }) },
);

/** Documents over few names, so that conditions often meet a field, in several types, or miss it. */
export const document: fc.Arbitrary<Document> = fc.record(
  {
    a: value,
    b: value,
    c: value,
    n: fc.constantFrom(...numbers),
    metadata: fc.record({ m: value, a: value }, { requiredKeys: [] }),
  },
  { requiredKeys: [] },
);

const field = fc.constantFrom(
  'a',
  'b',
  'c',
  'n',
  'm',
  'metadata.a',
  'payload.b',
  'metadata.m',
  'a.x',
  'b.x',
  'c.y',
  'm.x',
  'nowhere',
);
const text = fc.constantFrom(...texts.filter((t) => t !== ''));
const comparable = fc.oneof(fc.constantFrom(...texts), fc.constantFrom(...numbers));

const leaf: fc.Arbitrary<Document> = fc.oneof(
  fc.record({ field, operator: fc.constantFrom('eq', 'ne'), value: scalar }),
  fc.record({ field, operator: fc.constantFrom('gt', 'gte', 'lt', 'lte'), value: comparable }),
  fc.record({ field, operator: fc.constantFrom('in', 'nin'), value: fc.array(scalar, { maxLength: 3 }) }),
  fc.record({
    field,
    operator: fc.constantFrom('contains', 'starts_with', 'ends_with'),
    value: fc.constantFrom(...texts),
  }),
  fc.record({ field, operator: fc.constant('text'), value: text }),
  fc.record({
    field,
    operator: fc.constant('regex'),
    value: fc.constantFrom('^a', 'b$', '[0-9]+', 'ra|ßE', '.'),
  }),
  fc.record({ field, operator: fc.constantFrom('exists', 'is_null'), value: fc.boolean() }),
);

/** Condition trees as they come over the wire. */
export const conditionTree: fc.Arbitrary<Document> = fc.letrec<{ node: Document }>((tie) => ({
  node: fc.oneof(
    { maxDepth: 3, withCrossShrink: true },
    leaf,
    fc.record(
      { AND: fc.array(tie('node'), { maxLength: 3 }), case_sensitive: fc.boolean() },
      { requiredKeys: ['AND'] },
    ),
    fc.record(
      { OR: fc.array(tie('node'), { minLength: 1, maxLength: 3 }), case_sensitive: fc.boolean() },
      { requiredKeys: ['OR'] },
    ),
    fc.record(
      { NOT: fc.oneof(fc.array(tie('node'), { maxLength: 3 }), tie('node')), case_sensitive: fc.boolean() },
      { requiredKeys: ['NOT'] },
    ),
  ),
})).node;

/** All scalars that a dotted path reaches, lists and lists of objects gone through; undefined if it reaches nothing. */
function reach(node: Json | undefined, parts: readonly string[]): Json[] | undefined {
  if (node === undefined) return undefined;
  if (Array.isArray(node)) {
    const reached = node.map((element) => reach(element, parts)).filter((r) => r !== undefined);
    if (reached.length > 0) return reached.flat();
    return parts.length === 0 && node.every(isEmpty) ? [] : undefined;
  }
  if (parts.length > 0) {
    if (typeof node !== 'object' || node === null) return undefined;
    return reach(node[parts[0]!], parts.slice(1));
  }
  if (typeof node === 'object' && node !== null) return undefined;
  return [node];
}

/** An object or list without any value in it, which counts as an empty list. */
function isEmpty(node: Json): boolean {
  return typeof node === 'object' && node !== null && Object.values(node).every(isEmpty);
}

/** What a field of a document holds, lists gone through; `below`: only fields under it are there. */
export function lookUp(document: Document, name: string): { values: Json[] | undefined; below: boolean } {
  const parts = name.replace(/^(metadata\.|payload\.)/, '').split('.');
  const inMetadata = document.metadata as Json | undefined;
  const from = (root: Json | undefined) => {
    const values = reach(root, parts);
    const node = parts.reduce<Json | undefined>(
      (at, part) => (typeof at === 'object' && at !== null && !Array.isArray(at) ? at[part] : undefined),
      root,
    );
    if (values === undefined && node !== undefined && isEmpty(node))
      return { values: [] as Json[], below: false };
    return { values, below: values === undefined && node !== undefined };
  };
  const root = from(document);
  const meta = from(inMetadata);
  // The two tables are laid over each other, name by name.
  return { values: root.values ?? meta.values, below: root.below || meta.below };
}

/** The meaning of a condition, written down a second time, straight from the rules of the API. */
export function naiveEvaluate(tree: Document, document: Document, inherited = false): boolean {
  const sensitive = (tree.case_sensitive as boolean | undefined) ?? inherited;
  const list = (nodes: Json) => (Array.isArray(nodes) ? nodes : [nodes]) as Document[];
  if ('AND' in tree) return list(tree.AND!).every((node) => naiveEvaluate(node, document, sensitive));
  if ('OR' in tree) return list(tree.OR!).some((node) => naiveEvaluate(node, document, sensitive));
  if ('NOT' in tree) return list(tree.NOT!).every((node) => !naiveEvaluate(node, document, sensitive));
  const { values, below } = lookUp(document, tree.field as string);
  const wanted = tree.value as Json;
  const fold = (x: Json) => (typeof x === 'string' && !sensitive ? naiveFold(x) : x);
  const any = (test: (x: Json) => boolean) => values?.some(test) ?? false;
  const anyText = (test: (x: string, w: string) => boolean) =>
    any((x) => typeof x === 'string' && test(fold(x) as string, fold(wanted) as string));
  const anyOrdered = (test: (x: number | string, w: number | string) => boolean) =>
    any((x) => typeof x === typeof wanted && test(fold(x) as string, fold(wanted) as string));
  const words = (x: string) =>
    x
      .split(/[^\p{L}\p{M}\p{N}]+/u)
      .flatMap((w) => (/\p{sc=Han}/u.test(w) ? [...w] : [w]))
      .filter(Boolean);
  switch (tree.operator) {
    case 'eq':
      return any((x) => fold(x) === fold(wanted));
    case 'ne':
      return !any((x) => fold(x) === fold(wanted));
    case 'in':
      return any((x) => (wanted as Json[]).some((w) => fold(x) === fold(w)));
    case 'nin':
      return !any((x) => (wanted as Json[]).some((w) => fold(x) === fold(w)));
    case 'gt':
      return anyOrdered((x, w) => x > w);
    case 'gte':
      return anyOrdered((x, w) => x >= w);
    case 'lt':
      return anyOrdered((x, w) => x < w);
    case 'lte':
      return anyOrdered((x, w) => x <= w);
    case 'contains':
      return anyText((x, w) => x.includes(w));
    case 'starts_with':
      return anyText((x, w) => x.startsWith(w));
    case 'ends_with':
      return anyText((x, w) => x.endsWith(w));
    case 'text':
      return anyText((x, w) => words(w).every((word) => words(x).includes(word)));
    case 'regex':
      return any(
        (x) => typeof x === 'string' && new RegExp(wanted as string, sensitive ? 'us' : 'uis').test(x),
      );
    case 'exists':
      return (values !== undefined || below) === wanted;
    case 'is_null':
      return ((values === undefined && !below) || any((x) => x === null)) === wanted;
    default:
      throw new Error(`the model does not know ${String(tree.operator)}`);
  }
}

/** Letter by letter; enough for the texts above. */
function naiveFold(text: string): string {
  const pairs: Record<string, string> = { ß: 'ss', ς: 'σ', İ: 'i\u0307' };
  return [...text].map((letter) => pairs[letter] ?? letter.toLowerCase()).join('');
}

const typeOrder = ['number', 'string', 'boolean', 'object'];

/** Numbers, texts by UTF-16 units, booleans, null. */
export function naiveOrder(a: Json, b: Json): number {
  const byType = typeOrder.indexOf(typeof a) - typeOrder.indexOf(typeof b);
  return byType !== 0 ? byType : a === b ? 0 : (a as number) < (b as number) ? -1 : 1;
}
