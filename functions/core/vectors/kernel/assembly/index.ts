// The kernel: scans rows for up to 16 queries and leaves the candidates of each in memory. Plain simd128, no threads.
export * from './layout';
export { setRows } from './rows';
export { listRows, scanList, scanRange } from './scan';
export { compact, refresh } from './select';
export { STAGE_NORM } from './stage';
// Exported for the tests; it also keeps the compiler from merging them into the walks, so that a long first scan goes
// over to the optimised code that the engine makes of them meanwhile.
export { dotBf16x2, dotBf16x4 } from './dots-bf16';
export { dotF32x2, dotF32x4 } from './dots-f32';
export { dotI16x2x4 } from './dots-i16';
export { dotI8x2, dotI8x4 } from './dots-i8';
export { stageBf16, stageF32, stageI8 } from './stage';
