// The list of conversations, as it is searched and filtered.

import { batch, signal } from "@preact/signals";
import * as api from "./api";
import { read, told } from "./requests";
import type { Conversation } from "./types";

export const search = signal("");
export const archived = signal(false);
export const pinnedList = signal<Conversation[]>([]);
export const list = signal<Conversation[]>([]);
export const nextCursor = signal<string | null>(null);
export const listLoaded = signal(false);

/** Whether the conversation stands in the list as far as that is loaded. */
export const isListed = (id: string) => [...pinnedList.value, ...list.value].some((listed) => listed.id === id);

let listing = 0;

export async function loadList(): Promise<void> {
  const mine = ++listing;
  const filter = { archived: archived.value, q: search.value.trim() };
  await read(async () => {
    const pieces = [true, false].map((pinned) => api.listConversations({ ...filter, pinned }));
    const [pinned, others] = await Promise.all(pieces);
    if (mine !== listing) return;
    batch(() => {
      pinnedList.value = pinned!.data;
      list.value = others!.data;
      nextCursor.value = others!.nextCursor;
      listLoaded.value = true;
    });
  });
}

export async function loadMore(): Promise<void> {
  const mine = listing;
  const filter = { archived: archived.value, q: search.value.trim(), pinned: false };
  await told(async () => {
    const piece = await api.listConversations({ ...filter, cursor: nextCursor.value });
    if (mine !== listing) return;
    list.value = [...list.value, ...piece.data];
    nextCursor.value = piece.nextCursor;
  });
}
