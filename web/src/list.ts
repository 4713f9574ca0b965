// The list of conversations: the pinned ones first, or the archive.

import { signal } from "@preact/signals";
import * as api from "./api";
import { listing } from "./listing";
import type { Conversation } from "./types";

export const archived = signal(false);

export const conversations = listing<Conversation>(async (q, cursor) => {
  const filter = { archived: archived.value, q };
  if (cursor) return api.listConversations({ ...filter, pinned: false, cursor });
  const pieces = [true, false].map((pinned) => api.listConversations({ ...filter, pinned }));
  const [pinned, others] = await Promise.all(pieces);
  return { data: [...pinned!.data, ...others!.data], nextCursor: others!.nextCursor };
});

/** Whether the conversation stands in the list as far as that is loaded. */
export const isListed = (id: string) => conversations.items.value.some((listed) => listed.id === id);
