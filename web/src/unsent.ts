// What somebody has written here and no server has: who would lose it is asked first.

export interface Owing {
  /** Whose it is, and in which workspace, as `session.whoAndWhere` says it. */
  readonly owner: string;
  /** Whether there is something to send that a server may still take. */
  readonly isOwing: boolean;
  /** Lets go of it. */
  close: () => void;
}

const known = new Set<Owing>();

export const follow = (one: Owing) => void known.add(one);
export const forget = (one: Owing) => void known.delete(one);

const owing = () => [...known].filter(({ isOwing }) => isOwing);

export const isSomethingOwed = () => owing().length > 0;

/** Whether all that was not sent yet is of whom `isHim` names. */
export const isOwedBy = (isHim: (owner: string) => boolean) =>
  isSomethingOwed() && owing().every(({ owner }) => isHim(owner));

/** Asks where something would be lost; true: nothing would be, or it may be. */
export function mayLose(what: string): boolean {
  if (!isSomethingOwed()) return true;
  if (!confirm(`What you have written in a document is not sent yet. ${what}, and lose it?`)) return false;
  owing().forEach((one) => one.close());
  return true;
}

addEventListener("beforeunload", (event) => {
  if (isSomethingOwed()) event.preventDefault();
});
