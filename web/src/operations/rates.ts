// How fast each worker is: the differences of what it has counted, as far as this page has seen it in the last minute.

import type { Worker } from "./types";

const KEPT_MS = 60_000;

/** Per second. */
export interface Rates {
  runs: number;
  tokens: number;
}

type Seen = Pick<Worker, "runsEnded" | "outputTokens"> & { at: number };
let seen = new Map<string, Seen[]>();

/** Of the workers that have reported twice; those that are silent stand still. */
export function ratesOf(workers: Worker[], now: number): Map<string, Rates> {
  seen = new Map(workers.map((worker) => [worker.owner, [...recent(worker.owner, now), { ...worker, at: now }]]));
  return new Map([...seen].filter(([, all]) => all.length > 1).map(([owner, all]) => [owner, rates(all)]));
}

const recent = (owner: string, now: number) =>
  (seen.get(owner) ?? []).filter(({ at }) => at > now - KEPT_MS && at < now);

function rates(all: Seen[]): Rates {
  const [first, last] = [all[0]!, all.at(-1)!];
  const passed = (last.at - first.at) / 1_000;
  return { runs: (last.runsEnded - first.runsEnded) / passed, tokens: (last.outputTokens - first.outputTokens) / passed };
}
