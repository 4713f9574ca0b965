// What the server says to operators, as /schema describes it.

export interface Worker {
  owner: string;
  state: "working" | "draining" | "silent";
  version: string;
  startedAt: string;
  seenAt: string;
  running: number;
  places: number;
  priorities: string[];
  runsEnded: number;
  outputTokens: number;
}

export interface Latency {
  samples: number;
  p50Ms: number | null;
  p95Ms: number | null;
  p99Ms: number | null;
}

export interface Minute {
  at: string;
  completed: number;
  failed: number;
  cancelled: number;
  pickupP50Ms: number | null;
  pickupP95Ms: number | null;
  firstTokenP50Ms: number | null;
  firstTokenP95Ms: number | null;
}

export interface PastMinute extends Minute {
  outputTokens: number;
}

export interface Queue {
  priority: string;
  queued: number;
  due: number;
  held: number;
  oldestDueS: number | null;
  running: number;
  waiting: number;
}

export interface Summary {
  at: string;
  queues: Queue[];
  pickup: Latency;
  firstToken: Latency;
  lastMinute: Minute;
  ended: { state: string; code: string | null; runs: number }[];
  workers: Worker[];
}

export interface Requeue {
  runId: string;
  newRunId: string;
  requeuedBy: string;
  requeuedAt: string;
}

export interface FailedRun {
  workspaceId: string;
  runId: string;
  conversationId: string;
  agentId: string | null;
  code: string;
  attempts: number;
  crashes: number;
  createdAt: string;
  startedAt: string | null;
  finishedAt: string;
  requeueable: boolean;
  outdated: boolean;
  detailsRemoved: boolean;
  conversationDeleted: boolean;
  requeue: Requeue | null;
}

export interface WorkspaceUse {
  workspaceId: string;
  runsToday: number;
  runsThisMonth: number;
  inputTokensToday: number;
  outputTokensToday: number;
  inputTokensThisMonth: number;
  outputTokensThisMonth: number;
}
