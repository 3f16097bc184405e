// The default backend: none. The segments themselves are scanned, exactly, so there is no copy to keep.
import { metrics } from '../vectors/vector.ts';
import type { BackendDescription } from './backend.ts';

export const segments: BackendDescription = {
  title: 'segments in the index bucket, scanned exactly',
  stageSetting: null,
  metrics,
  limits: {
    rowsPerPut: 0,
    vectorBytesPerPut: 0,
    idsPerRemove: 0,
    scanBytesMax: Number.POSITIVE_INFINITY,
    candidatesMax: 0,
    isCountCheap: true,
  },
};
