// Schemas that every contract shares: names, lists, deletes, filters. Wire rules: API rules, sections 1, 4 and 5.
import * as z from 'zod';

/** Names of resources: 1 to 100 of letters, digits, `_`, `.`, `-`; never the beginning of an id of the same kind. */
export function nameOf(idPrefix: string): z.ZodType<string> {
  return z
    .string()
    .regex(/^[A-Za-z0-9_.-]{1,100}$/, 'a name has 1 to 100 letters, digits, "_", "." or "-"')
    .refine(
      (name) => !name.startsWith(idPrefix),
      `a name may not begin with "${idPrefix}", the prefix of ids`,
    );
}

/** Names of alerts, webhooks and keys: 1 to 200 printable characters. */
export const TitleName = z
  .string()
  .min(1)
  .max(200)
  .regex(/^[^\p{Cc}\p{Cs}]*$/u, 'a name has printable characters only');

export const Description = z.string().max(1000);

/** User metadata has this many bytes of JSON at most, so that every row that holds some stays small. */
export const metadataBytesMax = 32_000;

/** User metadata: a JSON object. Its depth is bounded for every body alike. */
export const Metadata = z
  .record(z.string().min(1).max(200), z.json())
  .refine((metadata) => Buffer.byteLength(JSON.stringify(metadata)) <= metadataBytesMax, {
    error: `has more than ${metadataBytesMax} bytes`,
    params: { type: 'too_large' },
  });

/** The filter tree is parsed by `core/conditions`, which reports its faults itself; here it is any JSON. */
export const FilterTree = z.json().meta({
  id: 'Filter',
  description:
    'One condition `{field, operator, value}` or a tree `{AND|OR|NOT: [...]}`. Operators: eq ne gt gte lt lte in nin contains starts_with ends_with regex exists is_null text.',
});

const Sort = z.strictObject({
  field: z.string().min(1).max(200),
  direction: z.enum(['asc', 'desc']).default('asc'),
});

const number = (min: number, max: number) => z.coerce.number().int().min(min).max(max);

/** Described once in the document, referred to by every list. */
const listed = (name: string, description: string) => ({ description, param: { id: `list_${name}` } });

/** Query parameters of every list. */
export const ListQuery = z.strictObject({
  limit: number(1, 1000).optional().meta(listed('limit', 'rows of a page; 20 if left out')),
  page_size: number(1, 1000).optional().meta(listed('page_size', 'the same as limit')),
  offset: number(0, 10_000).optional().meta(listed('offset', 'rows to skip; use the cursor for long lists')),
  page: number(1, 10_000).optional().meta(listed('page', 'number of the page, from 1')),
  cursor: z
    .string()
    .max(4000)
    .optional()
    .meta(listed('cursor', '`pagination.next_cursor` of the page before')),
  search: z
    .string()
    .max(200)
    .optional()
    .meta(listed('search', 'part of a name or id; * stands for anything')),
  include_total: z
    .stringbool()
    .optional()
    .meta(listed('include_total', 'whether to count; "false" makes long lists faster')),
});

/** Body of every `POST .../list`; where both name a value, the body wins. */
export const ListBody = z
  .strictObject({
    search: z.string().max(200).nullish(),
    filters: FilterTree.nullish(),
    sort: Sort.nullish(),
    sorts: z.array(Sort).max(10).nullish(),
    case_sensitive: z.boolean().nullish(),
    limit: z.int().min(1).max(1000).nullish(),
    page_size: z.int().min(1).max(1000).nullish(),
    offset: z.int().min(0).max(10_000).nullish(),
    page: z.int().min(1).max(10_000).nullish(),
    cursor: z.string().max(4000).nullish(),
    include_total: z.boolean().nullish(),
  })
  .meta({
    id: 'ListBody',
    example: {
      search: 'news',
      filters: { field: 'metadata.topic', operator: 'eq', value: 'gardening' },
      limit: 50,
    },
  });

export const Pagination = z
  .object({
    total: z.int().nullable(),
    page: z.int().nullable(),
    page_size: z.int(),
    total_pages: z.int().nullable(),
    next_page: z.string().nullable(),
    previous_page: z.string().nullable(),
    next_cursor: z.string().nullable(),
  })
  .meta({ id: 'Pagination' });

export const Warnings = z.array(z.string()).optional();

/** The answer of a list of `item`s. */
export function listReply<T extends z.ZodType>(item: T) {
  return z.object({
    results: z.array(item),
    pagination: Pagination,
    total_count: z.int().nullable(),
    total: z.int().nullable(),
    stats: z.record(z.string(), z.json()).optional(),
    warnings: Warnings,
  });
}

export const DeleteReply = z
  .object({ success: z.literal(true), message: z.string() })
  .meta({ id: 'Deleted' });

/** Replies with status 204 have no body. */
export const NoContent = z.undefined();

export const Timestamp = z.iso.datetime().meta({ description: 'ISO 8601, UTC, milliseconds' });
