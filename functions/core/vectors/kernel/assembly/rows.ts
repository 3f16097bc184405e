// The rows that the next scans read, set once for each part.

export const F32: u32 = 0;
export const BF16: u32 = 1;
export const I8: u32 = 2;

export const COSINE: u32 = 0;
export const DOT: u32 = 1;
export const EUCLID: u32 = 2;

export let dtype: u32 = 0;
export let metric: u32 = 0;
export let rows: u32 = 0;
export let padDims: u32 = 0;
export let rowBytes: usize = 0;
export let part: u32 = 0;
export let rowsAt: usize = 0;
export let auxAt: usize = 0;
export let scalesAt: usize = 0;
export let residualsAt: usize = 0;
export let normsAt: usize = 0;

export function setRows(
  newDtype: u32,
  newMetric: u32,
  newRows: u32,
  newPadDims: u32,
  newPart: u32,
  newRowsAt: usize,
  newAuxAt: usize,
  newScalesAt: usize,
  newResidualsAt: usize,
  newNormsAt: usize,
): void {
  dtype = newDtype;
  metric = newMetric;
  rows = newRows;
  padDims = newPadDims;
  rowBytes = newDtype == F32 ? newPadDims * 4 : newDtype == BF16 ? newPadDims * 2 : newPadDims;
  part = newPart;
  rowsAt = newRowsAt;
  auxAt = newAuxAt;
  scalesAt = newScalesAt;
  residualsAt = newResidualsAt;
  normsAt = newNormsAt;
}
