// The blocks of the pages that scripts print. `node docs/vectors/blocks.ts` puts them into the pages; a test compares.
import { readFileSync, writeFileSync } from 'node:fs';
import { otherSections, segmentDump } from './dump.ts';
import { boundExample } from './example.ts';
import { memoryMap } from './memory.ts';

/** What is printed: by page, by the name that stands before the block in a comment. */
export const blocks = {
  'kernel.md': { memory: memoryMap },
  'bound.md': { example: boundExample },
  'format.md': { segment: segmentDump, others: otherSections },
} as const satisfies Record<string, Record<string, () => string>>;

/** Where a block stands in the text of a page: between the fences that follow `<!-- printed: name -->`. */
export function findBlock(page: string, name: string): { readonly from: number; readonly to: number } {
  const begin = `<!-- printed: ${name} -->\n\`\`\`text\n`;
  const at = page.indexOf(begin);
  const from = at + begin.length;
  const to = page.indexOf('\n```', from - 1);
  if (at < 0 || to < 0) throw new Error(`the page has no block "${begin.trim()}"`);
  return { from, to };
}

if (import.meta.main) {
  for (const [name, makers] of Object.entries(blocks)) {
    const file = new URL(name, import.meta.url);
    let page = readFileSync(file, 'utf8');
    for (const [block, make] of Object.entries(makers)) {
      const { from, to } = findBlock(page, block);
      page = page.slice(0, from) + make() + page.slice(to);
    }
    writeFileSync(file, page);
  }
}
