// Requests about the service itself -> replies.
import type { Handlers } from '../../http/handler.ts';
import type { routes } from './contract.ts';
import { apiDocument, health } from './service.ts';

export const handlers: Handlers<typeof routes> = {
  getHealth: async ({ ctx }) => health(ctx),
  getOpenApi: () => apiDocument(),
};
