// A list of the server's that is searched, and read in pieces.

import { batch, type Signal, signal } from "@preact/signals";
import { read, told } from "./requests";
import type { Page } from "./types";

export interface Listing<T> {
  search: Signal<string>;
  items: Signal<T[]>;
  nextCursor: Signal<string | null>;
  loaded: Signal<boolean>;
  /** From its begin, as it is searched now. */
  load: () => Promise<void>;
  loadMore: () => Promise<void>;
}

export function listing<T>(ask: (q: string, cursor: string | null) => Promise<Page<T>>): Listing<T> {
  const search = signal("");
  const items = signal<T[]>([]);
  const nextCursor = signal<string | null>(null);
  const loaded = signal(false);
  let loads = 0;

  async function load(): Promise<void> {
    const mine = ++loads;
    await read(async () => {
      const piece = await ask(search.value.trim(), null);
      if (mine !== loads) return;
      batch(() => {
        items.value = piece.data;
        nextCursor.value = piece.nextCursor;
        loaded.value = true;
      });
    });
  }

  async function loadMore(): Promise<void> {
    const mine = loads;
    await told(async () => {
      const piece = await ask(search.value.trim(), nextCursor.value);
      if (mine !== loads) return;
      items.value = [...items.value, ...piece.data];
      nextCursor.value = piece.nextCursor;
    });
  }

  return { search, items, nextCursor, loaded, load, loadMore };
}
