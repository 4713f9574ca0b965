// Requests to the API. Every one may be repeated without harm: what must happen once has an idempotency key.

import { askForDevelopmentToken, signOut, token, workspace } from "./session";
import type { Accepted, Agent, Conversation, ConversationDetail, Document, Message, Page, Provider, Run } from "./types";

const TRIES = 3;
const TIMEOUT_MS = 15_000;

/** A refusal, in the server's words. `status` 0: the server could not be reached. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    message: string,
  ) {
    super(message);
  }

  /** Whether the same request may be answered otherwise later, without anything being changed. */
  get isPassing(): boolean {
    return this.status === 0 || this.status === 429 || this.status >= 500;
  }
}

export interface ListFilter {
  archived: boolean;
  q: string;
  pinned: boolean;
  cursor?: string | null;
}

export type Change = Partial<{
  title: string;
  pinned: boolean;
  archived: boolean;
  agentId: string | null;
  provider: string | null;
  model: string | null;
}>;

export const listConversations = ({ archived, q, pinned, cursor }: ListFilter) => {
  const query = new URLSearchParams({ archived: `${archived}`, pinned: `${pinned}`, limit: pinned ? "100" : "30" });
  if (q) query.set("q", q);
  if (cursor) query.set("cursor", cursor);
  return call<Page<Conversation>>("GET", `/v1/conversations?${query}`);
};
export const getConversation = (id: string) => call<ConversationDetail>("GET", `/v1/conversations/${id}`);
/** Tried once: a repetition would make another conversation. */
export const createConversation = (fields: Change) =>
  call<Conversation>("POST", "/v1/conversations", { body: fields, tries: 1 });
export const changeConversation = (id: string, change: Change) =>
  call<Conversation>("PATCH", `/v1/conversations/${id}`, { body: change });
export const deleteConversation = (id: string) => call<void>("DELETE", `/v1/conversations/${id}`);

export const postMessage = (conversationId: string, content: string, choice: Change) =>
  call<Accepted>("POST", `/v1/conversations/${conversationId}/messages`, {
    body: { content, ...choice },
    key: randomKey(),
  });
export const editMessage = (conversationId: string, id: string, content: string) =>
  call<Message>("PUT", `/v1/conversations/${conversationId}/messages/${id}`, { body: { content } });
export const regenerate = (conversationId: string, messageId: string, choice: Change) =>
  call<Accepted>("POST", `/v1/conversations/${conversationId}/messages/${messageId}/regenerate`, {
    body: { ifBusy: "interrupt", ...choice },
    key: randomKey(),
  });

export const cancelRun = (id: string) => call<Run>("POST", `/v1/runs/${id}/cancel`);
/** After a lost network the browser may ask over several dead connections in turn: none of them is waited for long. */
export const mintTicket = (opens: { runId: string } | { documentId: string }) =>
  call<{ ticket: string }>("POST", "/v1/tickets", { body: opens, limitMs: 5_000 });

export const listDocuments = (q: string, cursor: string | null) => {
  const query = new URLSearchParams({ limit: "30" });
  if (q) query.set("q", q);
  if (cursor) query.set("cursor", cursor);
  return call<Page<Document>>("GET", `/v1/documents?${query}`);
};
export const getDocument = (id: string) => call<Document>("GET", `/v1/documents/${id}`);
/** Tried once: a repetition would make another document. */
export const createDocument = (name: string) =>
  call<Document>("POST", "/v1/documents", { body: { name }, tries: 1 });
export const renameDocument = (id: string, name: string) =>
  call<Document>("PATCH", `/v1/documents/${id}`, { body: { name } });
export const deleteDocument = (id: string) => call<void>("DELETE", `/v1/documents/${id}`);
export const restoreDocument = (id: string) => call<Document>("POST", `/v1/documents/${id}/restore`);

export const listModels = () => call<Page<Provider>>("GET", "/v1/models");
export const listAgents = () => call<Page<Agent>>("GET", "/v1/agents?limit=100");

interface Options {
  body?: unknown;
  key?: string;
  tries?: number;
  limitMs?: number;
}

export async function call<T>(method: string, path: string, options: Options = {}): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await callOnce<T>(method, path, options);
    } catch (error) {
      if (!(error instanceof ApiError && error.isPassing) || attempt >= (options.tries ?? TRIES)) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 500 * attempt));
  }
}

async function callOnce<T>(method: string, path: string, options: Options, again = false): Promise<T> {
  const { body, key, limitMs = TIMEOUT_MS } = options;
  const used = token.value;
  const headers: Record<string, string> = { Authorization: `Bearer ${used}` };
  if (workspace.value) headers["X-Workspace-Id"] = workspace.value;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  if (key) headers["Idempotency-Key"] = key;
  let answer: Response;
  try {
    const signal = AbortSignal.timeout(limitMs);
    answer = await fetch(path, { method, headers, signal, body: body === undefined ? null : JSON.stringify(body) });
  } catch {
    throw new ApiError(0, "unreachable", "The server could not be reached. Try again.");
  }
  if (answer.ok) return answer.status === 204 ? (undefined as T) : answer.json();
  const error = await refusal(answer);
  if (answer.status !== 401) throw error;
  if (!again && (await isRenewed(used))) return callOnce<T>(method, path, options, true);
  signOut(error.message);
  throw error;
}

let renewing: Promise<boolean> | undefined;

/** Whether there is another token than the one that was refused: a development server gives one, once for all. */
async function isRenewed(refused: string | null): Promise<boolean> {
  if (token.value !== refused) return token.value !== null;
  if (refused === null) return false;
  renewing ??= askForDevelopmentToken().finally(() => (renewing = undefined));
  return renewing;
}

async function refusal(answer: Response): Promise<ApiError> {
  try {
    const { error } = await answer.json();
    return new ApiError(answer.status, error.code, error.message);
  } catch {
    return new ApiError(answer.status, "unknown", `The server answered with status ${answer.status}.`);
  }
}

/** Not `crypto.randomUUID`, which a page without HTTPS does not have. */
function randomKey(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
