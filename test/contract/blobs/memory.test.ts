// The store in memory keeps the contract of a store of bytes.
import { MemoryBlobs } from '../../../functions/core/store/memory.ts';
import { blobsSuite } from './suite.ts';

const [blobs, other] = [new MemoryBlobs('one'), new MemoryBlobs('two')];
blobsSuite({ name: 'in memory', make: async () => blobs, makeOther: async () => other });
