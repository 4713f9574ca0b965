// A document's room: its shared text, who is there, and the connection to it. With the editor the page's largest part,
// so it is loaded once a document is opened.

import { computed, effect, type ReadonlySignal, signal, untracked } from "@preact/signals";
import { readAuthMessage } from "y-protocols/auth";
import { WebsocketProvider } from "y-websocket";
import * as Y from "yjs";
import { ApiError, mintTicket } from "../api";
import { online } from "../requests";
import { isViewer, myName } from "../session";
import { edit } from "./editor";
import { type Peer, peersIn, showMyself } from "./presence";

const AGAIN_MS = 3000;
const AUTH_MESSAGE = 2;
const EXPIRED = 4401;

export type Link = "connecting" | "live" | "lost" | "deleted" | "forbidden" | "refused" | "full";

/** Closes after which nothing is tried again. */
const ENDS: Record<number, Link> = { 4403: "forbidden", 4404: "deleted", 4413: "full" };

export interface Room {
  link: ReadonlySignal<Link>;
  peers: ReadonlySignal<Peer[]>;
  readOnly: ReadonlySignal<boolean>;
  text: () => string;
  leave: () => void;
}

export function enter(id: string, place: HTMLElement): Room {
  const doc = new Y.Doc();
  const text = doc.getText("content");
  // Without its BroadcastChannel: what another tab shows is what the server has committed.
  const server = `${location.origin.replace(/^http/, "ws")}/v1/documents`;
  const provider = new WebsocketProvider(server, `${id}/sync`, doc, { connect: false, disableBc: true });
  const { awareness } = provider;
  const link = signal<Link>("connecting");
  const peers = signal<Peer[]>([]);
  const readOnly = signal(isViewer.peek());
  const hasText = signal(false);
  /** Whether something was written that no connection has taken. */
  let unsent = false;
  let left = false;
  let expired = 0;
  let again: ReturnType<typeof setTimeout> | undefined;

  const isOver = () => link.peek() !== "connecting" && link.peek() !== "live" && link.peek() !== "lost";
  const editor = edit(text, awareness, place, () => link.peek() === "live");

  async function connect(): Promise<void> {
    clearTimeout(again);
    try {
      const { ticket } = await mintTicket({ documentId: id });
      if (left || !online.peek()) return;
      provider.params = { ticket };
      provider.connect();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (left) return;
      if (!error.isPassing) return end(error.status === 404 ? "deleted" : "forbidden");
      link.value = "lost";
      again = setTimeout(() => void connect(), AGAIN_MS);
    }
  }

  function end(how: Link): void {
    provider.disconnect();
    link.value = how;
  }

  provider.on("sync", (isSynced: boolean) => {
    if (!isSynced) return;
    unsent = false;
    expired = 0;
    hasText.value = true;
    link.value = "live";
  });
  provider.on("status", ({ status }: { status: string }) => {
    // Others have seen this state go; only a later one counts as new to them.
    if (status === "connected") awareness.setLocalState(awareness.getLocalState());
  });
  provider.on("connection-close", () => {
    if (!isOver()) link.value = "lost";
  });
  provider.on("closed", ({ code }: { code: number }) => {
    // y-websocket tries nothing again after these. A ticket ends with its token: there may be another token by now.
    if (code === EXPIRED) again = setTimeout(() => void connect(), Math.min(100 * 2 ** expired++, 10_000));
    else end(ENDS[code] ?? "refused");
  });
  provider.messageHandlers[AUTH_MESSAGE] = (_encoder, decoder) =>
    readAuthMessage(decoder, doc, () => (readOnly.value = true));
  doc.on("update", (_update: Uint8Array, origin: unknown) => {
    if (origin !== provider && link.peek() !== "live") unsent = true;
  });
  awareness.on("change", () => (peers.value = peersIn(awareness)));
  showMyself(awareness, myName.peek());

  const warn = (event: BeforeUnloadEvent) => unsent && event.preventDefault();
  addEventListener("beforeunload", warn);
  const canWrite = computed(() => hasText.value && !readOnly.value && ["live", "lost"].includes(link.value));
  const unfollow = [
    effect(() => editor.setWritable(canWrite.value)),
    // The browser knows of a lost network long before a connection does.
    effect(() => {
      if (online.value) void untracked(connect);
      else if (!isOver()) {
        provider.disconnect();
        link.value = "lost";
      }
    }),
  ];

  function leave(): void {
    left = true;
    clearTimeout(again);
    unfollow.forEach((stop) => stop());
    removeEventListener("beforeunload", warn);
    editor.destroy();
    provider.destroy();
    doc.destroy();
  }

  return { link, peers, readOnly, text: () => text.toString(), leave };
}
