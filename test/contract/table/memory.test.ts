// The table in memory keeps the contract of a table.
import { MemoryTable } from '../../../functions/core/store/memory.ts';
import { tableSuite } from './suite.ts';

const table = new MemoryTable();
tableSuite({ name: 'in memory', make: async () => table, runs: 100 });
