// What the API sends, as far as the page reads it. The OpenAPI document at /schema has every field.

export interface Usage {
  inputTokens: number;
  outputTokens: number;
  cachedInputTokens: number;
  reasoningTokens: number;
}

export interface ToolCall {
  toolCallId: string;
  name: string;
  arguments: Record<string, unknown>;
}

export type Outcome = "ok" | "error" | "unknown" | "cancelled";

/** Answers carry every field, null when empty; events leave empty fields out. */
export interface Message {
  id: string;
  runId?: string | null;
  role: "user" | "assistant" | "tool" | "system";
  content: string;
  editedContent?: string | null;
  reasoning?: string | null;
  toolCalls?: ToolCall[] | null;
  toolCallId?: string | null;
  isError?: boolean | null;
  outcome?: Outcome | null;
  provider?: string | null;
  model?: string | null;
  usage?: Usage | null;
}

export interface RunError {
  code: string;
  message: string;
  retryable: boolean;
}

export interface Run {
  id: string;
  conversationId: string;
  triggerMessageId: string;
  provider: string;
  model: string;
  state: "waiting" | "queued" | "running" | "paused" | "completed" | "failed" | "cancelled";
  finishReason: string | null;
  error: RunError | null;
  partialText: string | null;
}

export interface Conversation {
  id: string;
  title: string | null;
  agentId: string | null;
  provider: string | null;
  model: string | null;
  pinnedAt: string | null;
  archivedAt: string | null;
}

export interface ConversationDetail extends Conversation {
  messages: Message[];
  activeRun: Run | null;
  lastRun: Run | null;
}

/** As far as the page reads it: what it says comes from its room. */
export interface Document {
  id: string;
  name: string;
}

export interface Accepted {
  message: Message;
  run: Run;
}

export interface Page<T> {
  data: T[];
  nextCursor: string | null;
}

export interface Agent {
  id: string;
  name: string;
}

export interface Provider {
  name: string;
  configured: boolean;
  models: string[];
  default: boolean;
}

/** What a run's stream says. `type`s that are not listed here are to be ignored. */
export type RunEvent =
  | { type: "started"; messages?: Message[]; messageIds?: string[] }
  | { type: "reasoning"; content: string }
  | { type: "token"; content: string }
  | { type: "tool_call_delta"; toolCallId: string; name: string; delta: string }
  | { type: "tool_call"; toolCallId: string; name: string; arguments: Record<string, unknown> }
  | { type: "step"; index: number; message: Message; usage: Usage }
  | { type: "tool_result"; toolCallId: string; name: string; result: string; isError: boolean; outcome: Outcome }
  | { type: "discarded"; reason: string }
  | End;

export type End =
  | { type: "done"; usage: Usage; finishReason: string }
  | { type: "error"; error: RunError }
  | { type: "cancelled"; reason: string };
