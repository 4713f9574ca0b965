// The open conversation and its run, and everything that changes them. Components read the signals and call the functions.

import { batch, computed, signal } from "@preact/signals";
import { address, go } from "./address";
import * as api from "./api";
import { ApiError } from "./api";
import { type Choice, defaultChoice, hasDefault, loadCatalogue, providers } from "./catalogue";
import { archived, conversations, isListed } from "./list";
import { notice, online, read, repeatBy, told, unreachable } from "./requests";
import { fold, follow, type Following, type Held, isEnd, NOTHING } from "./stream";
import type { Conversation, ConversationDetail, Message, Run, RunEvent } from "./types";

// --- The open conversation and its run ---------------------------------------------------------------------

/** Null: a new conversation, which exists once its first message is sent. */
export const conversation = signal<ConversationDetail | null>(null);
export const loading = signal(false);

interface Live {
  run: Run;
  held: Held;
}
/** The run that is followed, until what it has said is read from the conversation. */
export const live = signal<Live | null>(null);
export const connected = signal(true);
export const running = computed(() => live.value !== null && live.value.held.end === undefined);
/** What stands in the composer. */
export const draft = signal("");
/** A message is on its way, or an edit is. */
export const sending = signal(false);

/** A user's message and what answers it. */
export interface Turn {
  question: Message | null;
  answers: Message[];
}

export const turns = computed<Turn[]>(() => {
  const found: Turn[] = [];
  const followed = live.value;
  for (const message of conversation.value?.messages ?? []) {
    if (message.role === "user") found.push({ question: message, answers: [] });
    else if (followed && message.runId === followed.run.id) continue;
    else if (found.length) found.at(-1)!.answers.push(message);
    else found.push({ question: null, answers: [message] });
  }
  const answered = found.find(({ question }) => question?.id === followed?.run.triggerMessageId);
  if (answered) answered.answers.push(...followed!.held.messages);
  return found;
});

let following: Following | undefined;
let opening = 0;

const isOpen = () => address().conversation === (conversation.value?.id ?? "");

export async function openFromAddress(): Promise<void> {
  const id = address().conversation;
  if (isOpen()) return;
  const mine = ++opening;
  leaveRun();
  batch(() => {
    conversation.value = null;
    notice.value = "";
    loading.value = id !== "";
  });
  if (!id) {
    choice.value = defaultChoice();
    return;
  }
  const done = await read(async () => {
    const found = await api.getConversation(id);
    if (mine === opening) show(found);
  });
  if (mine !== opening || (!done && unreachable.value)) return;
  loading.value = false;
  if (!done) go({ conversation: "" });
}

/** How often something has begun or was chosen here: what was asked for before that is out of date. */
let begins = 0;

/** Reads the open conversation again, and follows what runs in it. */
export async function refresh(): Promise<void> {
  const id = conversation.value?.id;
  if (!id) return;
  const mine = begins;
  await read(async () => {
    const found = await api.getConversation(id);
    if (conversation.value?.id !== id) return;
    if (mine === begins) show(found);
    else await refresh();
  });
}

function show(found: ConversationDetail): void {
  const same = live.value?.run.id === found.activeRun?.id;
  batch(() => {
    conversation.value = found;
    choice.value = usable(choiceOf(found));
    if (!same || live.value?.held.end) leaveRun();
    if (found.activeRun && !live.value) followRun(found.activeRun);
  });
  const { loaded, search, load } = conversations;
  if (loaded.value && !found.archivedAt && !archived.value && !search.value && !isListed(found.id)) void load();
}

function followRun(run: Run): void {
  leaveRun();
  const stored = conversation.value?.messages.filter(({ runId }) => runId === run.id) ?? [];
  let held: Held = { ...NOTHING, messages: stored };
  let painting: ReturnType<typeof setTimeout> | undefined;
  live.value = { run, held };

  function paint(): void {
    clearTimeout(painting);
    painting = undefined;
    if (live.value?.run.id === run.id) live.value = { run, held };
  }

  /** A `started` that is too large for an event names its messages only. */
  async function readMessages(): Promise<void> {
    const { messages } = await api.getConversation(run.conversationId);
    const stored = messages.filter(({ runId }) => runId === run.id);
    const known = new Set(stored.map((message) => message.toolCallId ?? message.id));
    const since = held.messages.filter((message) => !known.has(message.toolCallId ?? message.id));
    held = { ...held, messages: [...stored, ...since] };
    paint();
  }

  following = follow(run.id, {
    event(event: RunEvent) {
      held = fold(held, event);
      // Tokens come faster than anybody reads: what came within two frames is painted at once.
      painting ??= setTimeout(paint, 30);
      if (event.type === "started" && event.messageIds) void read(readMessages);
      if (isEnd(event)) {
        paint();
        void refresh();
      }
    },
    connected: (now) => (connected.value = now),
    refused(error) {
      leaveRun();
      notice.value = error.message;
    },
  });
}

function leaveRun(): void {
  following?.stop();
  following = undefined;
  connected.value = true;
  live.value = null;
}

/** What may have been missed while nobody looked: after a sleep, a lost network, in another tab. */
export function catchUp(): void {
  online.value = navigator.onLine;
  if (!online.value) return;
  if (!isOpen()) void openFromAddress();
  else if (running.value) following?.reopen();
  else void refresh();
  void conversations.load();
  if (providers.value.length === 0) void loadOffers();
}

// --- What a person does ------------------------------------------------------------------------------------

/** What the page is opening: the catalogue, and the conversation that the address names. */
let opened: Promise<unknown> = Promise.resolve();

/** True once the message is stored; until then it stays in the composer. Who is faster than the page is waited for. */
export const send = (text: string) =>
  occupied(async () => {
    const meant = address().conversation;
    await opened;
    await choiceTaken();
    if (address().conversation !== meant || !isOpen()) throw new ApiError(0, "unreachable", "This conversation is not open.");
    const into = conversation.value ?? (await create(text));
    const accepted = await api.postMessage(into.id, text, standIn(into));
    begun(into.id, accepted.run, accepted.message);
  });

export const edit = (message: Message, text: string) =>
  occupied(async () => {
    const into = await openOnceChosen();
    await api.editMessage(into.id, message.id, text);
    await answerAnew(into, message);
  });

export const regenerate = (message: Message) =>
  occupied(async () => {
    const into = await openOnceChosen();
    await answerAnew(into, message);
  });

export async function stop(): Promise<void> {
  const run = live.value?.run;
  if (run && running.value) await told(() => api.cancelRun(run.id));
}

/** Somebody who has opened another one meanwhile stays there. */
async function create(text: string): Promise<Conversation> {
  const title = text.trim().split("\n")[0]!.slice(0, 80);
  const mine = opening;
  const created = await api.createConversation({ title, ...choice.value });
  const isWanted = mine === opening;
  if (isWanted) {
    conversation.value = { ...created, messages: [], activeRun: null, lastRun: null };
    go({ conversation: created.id });
  }
  if (isWanted && (archived.value || conversations.search.value)) {
    archived.value = false;
    conversations.search.value = "";
    void conversations.load();
  } else if (!archived.value) conversations.items.value = [created, ...conversations.items.value];
  return created;
}

/** The messages as they stand on the page: also those of a run that has just ended, which were not read yet. */
const allShown = () => turns.value.flatMap(({ question, answers }) => (question ? [question, ...answers] : answers));

/** What is open, as it is once the choice before this was taken; also if somebody goes elsewhere meanwhile. */
async function openOnceChosen(): Promise<Conversation> {
  const meant = conversation.value!;
  await choiceTaken();
  return conversation.value?.id === meant.id ? conversation.value : meant;
}

async function answerAnew(into: Conversation, message: Message): Promise<void> {
  const { run } = await api.regenerate(into.id, message.id, standIn(into));
  const found = await api.getConversation(into.id);
  if (conversation.value?.id === into.id) conversation.value = found;
  begun(into.id, run);
}

function begun(id: string, run: Run, message?: Message): void {
  const shown = conversation.value;
  if (shown?.id !== id) return;
  begins++;
  // It may have been read already: while the answer to the POST was under way, the page may have looked again.
  const isShown = message === undefined || shown.messages.some((known) => known.id === message.id);
  batch(() => {
    if (!isShown) conversation.value = { ...shown, messages: [...allShown(), message] };
    if (live.value?.run.id !== run.id) followRun(run);
  });
  toOtherTabs(id);
}

/** One at a time. */
async function occupied(work: () => Promise<void>): Promise<boolean> {
  if (sending.value) return false;
  sending.value = true;
  const done = await told(work);
  sending.value = false;
  // Somebody else's run, perhaps: then it is shown, and can be stopped.
  if (!done) void refresh();
  return done;
}

export async function change(id: string, wanted: api.Change): Promise<boolean> {
  return told(async () => {
    const changed = await api.changeConversation(id, wanted);
    if (conversation.value?.id === id) conversation.value = { ...conversation.value, ...changed };
    await conversations.load();
    toOtherTabs(id);
  });
}

export async function remove(id: string): Promise<void> {
  await told(async () => {
    await api.deleteConversation(id);
    if (conversation.value?.id === id) go({ conversation: "" });
    await conversations.load();
    toOtherTabs(id);
  });
}

// --- Which agent and which model answer ---------------------------------------------------------------------

export const choice = signal<Choice>(defaultChoice());

const choiceOf = ({ agentId, provider, model }: Conversation): Choice => ({ agentId, provider, model });

/** Where nobody has chosen and the server's default has no key, what has one stands in. */
const usable = (chosen: Choice): Choice =>
  chosen.agentId || chosen.provider || hasDefault.value ? chosen : defaultChoice();

/** What a message must name, since its conversation does not. */
function standIn(into: Conversation): Partial<Choice> {
  const { provider, model } = usable(choiceOf(into));
  return provider && !into.provider ? { provider, model } : {};
}

/** Whether the server has taken the last choice: a message that follows it waits for that. */
let choosing = Promise.resolve(true);

/** For the next message on. */
export async function choose(wanted: Partial<Choice>): Promise<void> {
  choice.value = { ...choice.value, ...wanted };
  const id = conversation.value?.id;
  if (!id) return;
  begins++;
  const mine = (choosing = choosing.then(() => change(id, wanted)));
  const taken = await mine;
  begins++;
  if (mine !== choosing) return;
  if (!taken) choosing = Promise.resolve(true);
  if (conversation.value?.id === id) choice.value = usable(choiceOf(conversation.value));
}

async function choiceTaken(): Promise<void> {
  if (!(await choosing)) throw new ApiError(0, "unreachable", "The choice was not taken, and nothing was sent.");
}

// --- Around it ---------------------------------------------------------------------------------------------

const channel = new BroadcastChannel("throughline");

function toOtherTabs(conversationId: string): void {
  channel.postMessage(conversationId);
}

async function loadOffers(): Promise<void> {
  await loadCatalogue();
  choice.value = conversation.value ? usable(choice.value) : defaultChoice();
}

export function start(): void {
  repeatBy(catchUp);
  channel.onmessage = ({ data }) => {
    void conversations.load();
    if (data === conversation.value?.id && !running.value) void refresh();
  };
  addEventListener("hashchange", () => (opened = openFromAddress()));
  addEventListener("online", catchUp);
  addEventListener("offline", () => {
    // What was said before is overtaken by this.
    notice.value = "";
    online.value = false;
  });
  document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && catchUp());
  void conversations.load();
  opened = Promise.all([loadOffers(), openFromAddress()]);
}
