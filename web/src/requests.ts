// Requests of the page: what a refusal says, and that what only reads is repeated until there is a server again.

import { signal } from "@preact/signals";
import { ApiError } from "./api";

/** What is said at the top until it is closed or overtaken. */
export const notice = signal("");
export const online = signal(navigator.onLine);
/** The last request that only reads found no server; it is repeated until one does. */
export const unreachable = signal(false);

export interface Undoable {
  done: string;
  undo: () => void;
}
/** What was just done and can be taken back; said until it is closed or overtaken. */
export const undoable = signal<Undoable | null>(null);

const repeats: (() => void)[] = [];

/** Names what reads again all that it has read. */
export function repeatBy(readAll: () => void): void {
  repeats.push(readAll);
}

export function readAgain(): void {
  notice.value = "";
  repeats.forEach((repeat) => repeat());
}

/** Does what somebody asked for; false when it was refused, which `notice` then says. */
export async function told(work: () => Promise<unknown>): Promise<boolean> {
  try {
    await work();
    notice.value = "";
    return true;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    notice.value = error.message;
    return false;
  }
}

let again: ReturnType<typeof setTimeout> | undefined;

/** Reads something; while there is no server to read from, everything is read again, soon. */
export async function read(work: () => Promise<unknown>): Promise<boolean> {
  try {
    await work();
    unreachable.value = false;
    return true;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    unreachable.value = error.isPassing;
    if (!error.isPassing) notice.value = error.message;
    else {
      clearTimeout(again);
      again = setTimeout(() => repeats.forEach((repeat) => repeat()), 3000);
    }
    return false;
  }
}
