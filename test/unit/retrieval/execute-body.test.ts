// Execute bodies: both spellings, and answers to the usual mistakes that show the right form.
import { describe, expect, it } from 'vitest';
import type { AppError, FieldFault } from '../../../functions/core/errors.ts';
import { normaliseExecuteBody } from '../../../functions/core/retrieval/execute-body.ts';

const faultsOf = (body: unknown, also: string[] = []): readonly FieldFault[] => {
  try {
    normaliseExecuteBody(body, also);
  } catch (error) {
    expect((error as AppError).code).toBe('retriever_input_invalid');
    return (error as AppError).fields;
  }
  return [];
};

describe('an execute body', () => {
  it('means the same with input and with inputs', () => {
    const { inputs } = normaliseExecuteBody({ input: { query: 'a' } });
    expect(inputs).toEqual({ query: 'a' });
    expect(normaliseExecuteBody({ inputs: { query: 'a' } }).inputs).toEqual(inputs);
    expect(normaliseExecuteBody({ inputs: { query: 'a' }, input: { query: 'a' } }).inputs).toEqual(inputs);
    expect(normaliseExecuteBody(undefined).inputs).toEqual({});
  });

  it('refuses {"query": {"input": …}} and a bare query with the right form', () => {
    for (const body of [{ query: { input: { query: 'a' } } }, { query: { inputs: {} } }, { query: 'a' }]) {
      const [fault, more] = faultsOf(body);
      expect(more).toBeUndefined();
      expect(fault).toMatchObject({ location: ['body', 'query'], type: 'extra_forbidden' });
      expect(fault?.fix).toContain('{"input": {"query": "…"}}');
    }
  });

  it('refuses two different inputs, inputs that are no object, unknown keys and flags that are no booleans', () => {
    expect(faultsOf({ input: { a: 1 }, inputs: { a: 2 } })).toMatchObject([{ location: ['body', 'input'] }]);
    expect(faultsOf({ input: 'quantum' })).toMatchObject([{ location: ['body', 'input'] }]);
    expect(faultsOf({ inputs: [] })).toMatchObject([{ location: ['body', 'inputs'] }]);
    expect(faultsOf([])).toMatchObject([{ location: ['body'] }]);
    expect(faultsOf({ q: 1, stream: 'yes' })).toMatchObject([
      { location: ['body', 'q'] },
      { location: ['body', 'stream'] },
    ]);
    expect(faultsOf({ q: 1 })[0]?.fix).toContain('filters');
  });

  it('hands the route its own keys', () => {
    expect(normaliseExecuteBody({ inputs: {}, stages: [1] }, ['stages']).rest).toEqual({ stages: [1] });
    expect(faultsOf({ inputs: {}, stages: [1] })).toHaveLength(1);
  });

  it('reads each way of paging with its bounds', () => {
    const page = (pagination: unknown, limit?: unknown) =>
      normaliseExecuteBody({ pagination, limit }).pagination;
    expect(page(undefined)).toEqual({ method: 'offset', page_size: 10, page_number: 1 });
    expect(page(undefined, 500)).toEqual({ method: 'offset', page_size: 500, page_number: 1 });
    expect(page({ page_size: 3, page_number: 2 })).toEqual({
      method: 'offset',
      page_size: 3,
      page_number: 2,
    });
    expect(page({ method: 'cursor' })).toEqual({ method: 'cursor', limit: 10 });
    expect(page({ method: 'cursor', cursor: 'x' }, 7)).toEqual({ method: 'cursor', limit: 7, cursor: 'x' });
    expect(page({ method: 'scroll', limit: 1000 })).toEqual({ method: 'scroll', limit: 1000 });
    expect(page({ method: 'keyset', after: { document_id: 'd', position: 4 } })).toEqual({
      method: 'keyset',
      limit: 10,
      after: { document_id: 'd', position: 4 },
    });
    for (const [pagination, limit] of [
      [undefined, 501],
      [undefined, 0],
      [{ page_size: 501 }, undefined],
      [{ page_number: 0 }, undefined],
      [{ method: 'pages' }, undefined],
      [{ method: 'scroll', limit: 1001 }, undefined],
      [{ method: 'cursor', page_size: 3 }, undefined],
      [{ page_size: 3 }, 4],
      [{ method: 'keyset', after: { score: 1 } }, undefined],
      ['first', undefined],
    ]) {
      expect(faultsOf({ pagination, limit })).toHaveLength(1);
    }
  });
});
