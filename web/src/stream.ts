// A run's events over SSE: what a client does with them, and how it goes on after a break.
// This is all that following a run takes; docs/stream.md has the promises that it relies on.

import { ApiError, mintTicket } from "./api";
import type { End, Message, RunEvent, ToolCall } from "./types";

/** What a client holds of a run. */
export interface Held {
  /** What is stored. */
  messages: Message[];
  /** What the unfinished step has said so far. */
  text: string;
  reasoning: string;
  /** Calls that the model is still writing: their arguments are a piece of JSON. */
  drafts: { toolCallId: string; name: string; json: string }[];
  /** How the run ended, if it has. */
  end?: End;
}

export const NOTHING: Held = { messages: [], text: "", reasoning: "", drafts: [] };
const NO_STEP = { text: "", reasoning: "", drafts: [] };

/** What is held, as a function of what was held and the next event. */
export function fold(held: Held, event: RunEvent): Held {
  switch (event.type) {
    case "started":
      return { messages: event.messages ?? held.messages, ...NO_STEP };
    case "token":
      return { ...held, text: held.text + event.content };
    case "reasoning":
      return { ...held, reasoning: held.reasoning + event.content };
    case "tool_call_delta":
      return { ...held, drafts: withDelta(held.drafts, event) };
    case "discarded":
      return { ...held, ...NO_STEP };
    case "step":
      return { messages: [...held.messages, { ...event.message, usage: event.usage }], ...NO_STEP };
    case "tool_result":
      return { ...held, messages: [...held.messages, resultMessage(event)] };
    case "done":
    case "error":
    case "cancelled":
      return { ...held, end: event };
    default:
      return held;
  }
}

function withDelta(drafts: Held["drafts"], event: RunEvent & { type: "tool_call_delta" }): Held["drafts"] {
  const { toolCallId, name, delta } = event;
  const known = drafts.find((draft) => draft.toolCallId === toolCallId);
  if (!known) return [...drafts, { toolCallId, name, json: delta }];
  return drafts.map((draft) => (draft === known ? { ...draft, json: draft.json + delta } : draft));
}

function resultMessage({ toolCallId, result, isError, outcome }: RunEvent & { type: "tool_result" }): Message {
  return { id: `result of ${toolCallId}`, role: "tool", content: result, toolCallId, isError, outcome };
}

export interface Listener {
  event(event: RunEvent): void;
  /** Whether the stream is open; while it is not, it is being opened again. */
  connected(connected: boolean): void;
  /** The run cannot be followed any more. */
  refused(error: ApiError): void;
}

export interface Following {
  stop(): void;
  /** Opens the stream anew: for when the network is back, which a dead connection does not notice. */
  reopen(): void;
}

const SILENCE_MS = 45_000;
const LONGEST_PAUSE_MS = 8_000;

/**
 * Tells `listener` the run's events, in order and each once, until the run has ended or `stop` is called.
 *
 * An EventSource reconnects by itself with the last id it saw. It gives up when it is refused, as it is once its
 * ticket's token has expired or while the server is away; then a new ticket and `?after=` go on from the same place.
 */
export function follow(runId: string, listener: Listener): Following {
  let source: EventSource | undefined;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let opening = 0;
  let failures = 0;
  let after = "";

  function close(): void {
    opening++;
    clearTimeout(timer);
    source?.close();
  }

  async function open(): Promise<void> {
    close();
    const mine = opening;
    try {
      const { ticket } = await mintTicket({ runId });
      if (mine === opening) listen(ticket);
    } catch (error) {
      if (mine !== opening) return;
      if (error instanceof ApiError && !error.isPassing) return listener.refused(error);
      openLater();
    }
  }

  function listen(ticket: string): void {
    const query = new URLSearchParams(after ? { ticket, after } : { ticket });
    source = new EventSource(`/v1/runs/${runId}/stream?${query}`);
    source.onopen = () => {
      failures = 0;
      listener.connected(true);
      expectSomething();
    };
    source.onmessage = ({ data, lastEventId }: MessageEvent<string>) => {
      after = lastEventId || after;
      expectSomething();
      const event: RunEvent = JSON.parse(data);
      if (isEnd(event)) close();
      listener.event(event);
    };
    source.onerror = () => {
      listener.connected(false);
      if (source?.readyState === EventSource.CLOSED) openLater();
    };
  }

  function openLater(): void {
    close();
    listener.connected(false);
    timer = setTimeout(() => void open(), Math.min(LONGEST_PAUSE_MS, 500 * 2 ** failures++));
  }

  /** A page does not see heartbeats, so it cannot tell a silent run from a dead connection: a new one costs little. */
  function expectSomething(): void {
    clearTimeout(timer);
    timer = setTimeout(() => void open(), SILENCE_MS);
  }

  void open();
  return { stop: close, reopen: () => void open() };
}

export function isEnd(event: RunEvent): event is End {
  return event.type === "done" || event.type === "error" || event.type === "cancelled";
}

/** The calls of a message, each with its result once there is one. */
export function callsWithResults(message: Message, all: Message[]): { call: ToolCall; result?: Message }[] {
  return (message.toolCalls ?? []).map((call) => {
    const result = all.find(({ role, toolCallId }) => role === "tool" && toolCallId === call.toolCallId);
    return result ? { call, result } : { call };
  });
}
