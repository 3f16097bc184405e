// What all programs of one run agree on.

/** Hits that every query asks for. */
export const k = 10;

/** Queries of one batch: as many as share one pass of the kernel. */
export const batchSize = 16;

/**
 * Different values that the 1 % filters ask for, in turns: together their rows do not fit into a processor's cache, so
 * that every query reads them from memory. With the ten of the 10 % filters they are no more than the bitmaps that
 * are kept.
 */
export const hundredthsAsked = 20;
