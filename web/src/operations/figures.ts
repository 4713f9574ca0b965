// What the server has said, and said again every two seconds. It keeps no history but the last hour's minutes: what is
// plotted beyond those is what this page has seen.

import { signal } from "@preact/signals";
import { ApiError, call } from "../api";
import type { Page } from "../types";
import { type Rates, ratesOf } from "./rates";
import type { FailedRun, Minute, PastMinute, Queue, Requeue, Summary, WorkspaceUse } from "./types";

const EVERY_MS = 2_000;
const FAILED_EVERY_MS = 6_000;
const USE_EVERY_MS = 10_000;
const AGAIN_MS = 5_000;
const SHOWN_MS = 3_600_000;
const MINUTE_MS = 60_000;

export interface Load {
  queued: number;
  running: number;
  waiting: number;
  /** For how long the oldest that may be claimed might have been. */
  oldestS: number;
}

export interface Point {
  at: number;
  /** Of a moment that this page has seen; the minutes before know only what ended. */
  now?: Load;
  minute: Minute;
  tokensPerS: number | null;
}

export const summary = signal<Summary | null>(null);
export const rates = signal(new Map<string, Rates>());
export const points = signal<Point[]>([]);
export const failed = signal<FailedRun[] | null>(null);
export const moreFailed = signal<string | null>(null);
export const code = signal("");
export const use = signal<WorkspaceUse[] | null>(null);
/** The token is good, and no superuser's. */
export const isRefused = signal(false);
/** Why what is shown may be old. */
export const trouble = signal("");

/** Reads until it is told to stop; while nobody looks at the page it rests. */
export function follow(): () => void {
  isRefused.value = false;
  const stops = [
    repeat(readHistory, SHOWN_MS),
    repeat(readSummary, EVERY_MS),
    repeat(readFailed, FAILED_EVERY_MS),
    repeat(readUse, USE_EVERY_MS),
  ];
  const fillGap = () => document.hidden || void attempt(readHistory);
  document.addEventListener("visibilitychange", fillGap);
  stops.push(() => document.removeEventListener("visibilitychange", fillGap));
  return () => stops.forEach((stop) => stop());
}

function repeat(work: () => Promise<void>, everyMs: number): () => void {
  let timer: ReturnType<typeof setTimeout> | undefined;
  let isStopped = false;
  const turn = async () => {
    const isDone = !document.hidden && (await attempt(work));
    if (!isStopped) timer = setTimeout(() => void turn(), isDone ? everyMs : Math.min(everyMs, AGAIN_MS));
  };
  void turn();
  return () => {
    isStopped = true;
    clearTimeout(timer);
  };
}

async function attempt(work: () => Promise<void>): Promise<boolean> {
  try {
    await work();
    trouble.value = "";
    return true;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    if (error.status === 403) isRefused.value = true;
    else if (error.status !== 401) trouble.value = error.message;
    return false;
  }
}

const read = <T>(path: string) => call<T>("GET", `/v1/ops/${path}`, { tries: 1 });

/** The minutes that this page has not seen itself: it was not open, or nobody looked at it. */
async function readHistory(): Promise<void> {
  const { data } = await read<Page<PastMinute>>("history");
  const known = data.map((minute) => ({ at: Date.parse(minute.at), minute, tokensPerS: minute.outputTokens / 60 }));
  const seen = points.value.filter(({ now }) => now);
  const unseen = known.filter((minute) => seen.every(({ at }) => Math.abs(at - minute.at) > MINUTE_MS));
  points.value = [...unseen, ...seen].sort((one, other) => one.at - other.at);
}

async function readSummary(): Promise<void> {
  const told = await read<Summary>("summary");
  summary.value = told;
  const at = Date.parse(told.at);
  rates.value = ratesOf(told.workers, at);
  const tokensPerS = rates.value.size ? sum([...rates.value.values()].map(({ tokens }) => tokens)) : null;
  const kept = points.value.filter((point) => point.at > at - SHOWN_MS && point.at !== at);
  points.value = [...kept, { at, now: loadOf(told.queues), minute: told.lastMinute, tokensPerS }];
}

const sum = (numbers: number[]) => numbers.reduce((all, one) => all + one, 0);

/** All priorities together. */
const loadOf = (queues: Queue[]): Load => ({
  queued: sum(queues.map(({ queued }) => queued)),
  running: sum(queues.map(({ running }) => running)),
  waiting: sum(queues.map(({ waiting }) => waiting)),
  oldestS: Math.max(...queues.map(({ oldestDueS }) => oldestDueS ?? 0)),
});

const failedPath = (cursor = "") => {
  const query = new URLSearchParams({ limit: "20" });
  if (code.value) query.set("code", code.value);
  if (cursor) query.set("cursor", cursor);
  return `failed-runs?${query}`;
};

/** The first piece; who has asked for more keeps it, with what is newer before it. */
async function readFailed(): Promise<void> {
  const asked = code.value;
  const page = await read<Page<FailedRun>>(failedPath());
  if (asked !== code.value) return;
  const inPage = new Set(page.data.map(({ runId }) => runId));
  const last = page.data.at(-1)?.finishedAt ?? "";
  const rest = (failed.value ?? []).filter(({ runId, finishedAt }) => !inPage.has(runId) && finishedAt <= last);
  failed.value = [...page.data, ...rest];
  if (rest.length === 0) moreFailed.value = page.nextCursor;
}

export async function readMoreFailed(): Promise<void> {
  await attempt(async () => {
    const page = await read<Page<FailedRun>>(failedPath(moreFailed.value ?? ""));
    failed.value = [...(failed.value ?? []), ...page.data];
    moreFailed.value = page.nextCursor;
  });
}

export async function chooseCode(wanted: string): Promise<void> {
  code.value = wanted;
  failed.value = null;
  await attempt(readFailed);
}

async function readUse(): Promise<void> {
  use.value = (await read<Page<WorkspaceUse>>("workspaces")).data;
}

/** May be repeated: a run is started again once. */
export async function requeue(runId: string): Promise<Requeue> {
  const done = await call<Requeue>("POST", `/v1/ops/runs/${runId}/requeue`);
  failed.value = (failed.value ?? []).map((run) => (run.runId === runId ? { ...run, requeue: done } : run));
  return done;
}
