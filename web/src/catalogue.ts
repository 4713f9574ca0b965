// The models and agents that there are, and what is chosen of them where nobody has chosen.

import { computed, signal } from "@preact/signals";
import * as api from "./api";
import { read } from "./requests";
import type { Agent, Provider } from "./types";

export interface Choice {
  agentId: string | null;
  provider: string | null;
  model: string | null;
}

export const providers = signal<Provider[]>([]);
export const agents = signal<Agent[]>([]);
export const hasDefault = computed(() => providers.value.some((offer) => offer.default && offer.configured));

export async function loadCatalogue(): Promise<void> {
  await read(async () => {
    const [models, found] = await Promise.all([api.listModels(), api.listAgents()]);
    providers.value = models.data.filter(({ configured }) => configured);
    agents.value = found.data;
  });
}

/** Where the server's default has no key, the first model that has: so the first message needs none. */
export function defaultChoice(): Choice {
  const first = providers.value.find(({ models }) => models.length > 0);
  const needsOne = providers.value.length > 0 && !hasDefault.value && first !== undefined;
  const [provider, model] = needsOne ? [first.name, first.models[0]!] : [null, null];
  return { agentId: null, provider, model };
}
