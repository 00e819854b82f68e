// Every case, in the order in which they run. The first four groups leave nothing behind.
import type { Case } from './case.ts';
import { listCases } from './cases-list.ts';
import { machineCases } from './cases-machines.ts';
import { routesCases } from './cases-routes.ts';
import { sequenceCases } from './cases-sequences.ts';
import { streamCases } from './cases-stream.ts';

export const cases: Case[] = [
  ...streamCases,
  ...listCases,
  ...routesCases,
  ...machineCases,
  ...sequenceCases,
];
