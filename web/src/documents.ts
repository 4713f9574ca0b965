// The workspace's documents and which of them is open. What a document says is its room's: see room.ts.

import { batch, signal } from "@preact/signals";
import { address, go, isGarbled, linkTo } from "./address";
import * as api from "./api";
import { ApiError } from "./api";
import { draft, running } from "./chat";
import { listing } from "./listing";
import { notice, online, repeatBy, read, told, undoable } from "./requests";
import { isViewer } from "./session";
import type { Document } from "./types";

export const documents = listing<Document>(api.listDocuments);

/** What the address names; empty: no document is open. */
export const documentId = signal("");
/** The open document, once its name is known. */
export const openDocument = signal<Document | null>(null);
/** Which of the two is seen where there is no room for both. */
export const pane = signal<"conversation" | "document">("conversation");
/** A document without a name yet: its maker is asked for one. */
export const unnamed = signal("");

let conversationId = "";

async function openFromAddress(): Promise<void> {
  if (isGarbled()) {
    history.replaceState(null, "", linkTo({}));
    notice.value = "There is no such document.";
  }
  const { conversation, document: id } = address();
  if (conversation !== conversationId) pane.value = "conversation";
  conversationId = conversation;
  if (id === documentId.value) return;
  batch(() => {
    documentId.value = id;
    openDocument.value = documents.items.value.find((listed) => listed.id === id) ?? null;
    pane.value = id ? "document" : "conversation";
  });
  await readOpen();
}

async function readOpen(): Promise<void> {
  const id = documentId.value;
  if (!id) return;
  await read(async () => {
    try {
      const found = await api.getDocument(id);
      if (documentId.value === id) openDocument.value = found;
    } catch (error) {
      if (!isMissing(error)) throw error;
      // Its room says so, keeps what it says, and offers to restore it to who may.
      if (documentId.value !== id || openDocument.value || !isViewer.value) return;
      notice.value = error.message;
      go({ document: "" });
    }
  });
}

const isMissing = (error: unknown): error is ApiError => error instanceof ApiError && error.status === 404;

function catchUp(): void {
  void readOpen();
  if (documents.loaded.value) void documents.load();
}

// --- What a person does ------------------------------------------------------------------------------------

export const make = () =>
  changing(async () => {
    const { id } = await api.createDocument("Untitled");
    unnamed.value = id;
    documents.search.value = "";
    go({ document: id });
    return id;
  });

export const rename = (id: string, name: string) =>
  changing(async () => {
    const renamed = await api.renameDocument(id, name);
    if (documentId.value === id) openDocument.value = renamed;
    return id;
  });

export const remove = ({ id, name }: Document) =>
  changing(async () => {
    await api.deleteDocument(id);
    if (documentId.value === id) go({ document: "" });
    undoable.value = { done: `“${name}” is deleted.`, undo: () => void restore(id) };
    return id;
  });

/** True once the document is there again. */
export const restore = (id: string) =>
  changing(async () => {
    try {
      await api.restoreDocument(id);
    } catch (error) {
      if (!isMissing(error)) throw error;
      if (documentId.value === id && !openDocument.value) go({ document: "" });
      throw new ApiError(error.status, error.code, "There is nothing to restore: no document has had this address.");
    }
    undoable.value = null;
    go({ document: id });
    void readOpen();
    return id;
  });

/** Agents are told of documents by their ids: here it is put where the person sees it, and sends it or does not. */
export function mention({ id, name }: Document): void {
  const before = draft.value.trimEnd();
  draft.value = `${before && `${before} `}“${name}” (document ${id}) `;
  pane.value = "conversation";
}

// --- Around it ---------------------------------------------------------------------------------------------

const channel = new BroadcastChannel("throughline.documents");

/** Does what somebody asked for with a document, whose id is answered; all lists follow. */
async function changing(work: () => Promise<string>): Promise<boolean> {
  return told(async () => {
    // It is not tried until there is a network: it would be done when nobody looks any more.
    if (!online.peek()) throw new ApiError(0, "offline", "You are offline: nothing was done. Try again once you are back.");
    const id = await work();
    channel.postMessage(id);
    await documents.load();
  });
}

export function startDocuments(): void {
  repeatBy(catchUp);
  channel.onmessage = ({ data }) => {
    if (documents.loaded.value) void documents.load();
    if (data === documentId.value) void readOpen();
  };
  addEventListener("hashchange", () => void openFromAddress());
  addEventListener("online", catchUp);
  document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && catchUp());
  // An agent may have made one, renamed it or deleted it.
  running.subscribe((now) => {
    if (!now && documents.loaded.peek()) void documents.load();
  });
  conversationId = address().conversation;
  void openFromAddress();
}
