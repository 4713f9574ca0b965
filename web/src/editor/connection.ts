// The connection of a shared document to the server, by y-websocket. What is written without one is kept, and sent later.

import { effect, signal, untracked } from "@preact/signals";
import { readAuthMessage } from "y-protocols/auth";
import { WebsocketProvider } from "y-websocket";
import type * as Y from "yjs";
import { ApiError, mintTicket } from "../api";
import { online } from "../requests";
import { isViewer } from "../session";

const AGAIN_MS = 3000;
/** So long y-websocket may take a dead connection for a living one. */
const SILENCE_MS = 30_000;
const AUTH_MESSAGE = 2;
const EXPIRED = 4401;

/** The last four are for good. */
export type Link = "connecting" | "live" | "lost" | "deleted" | "forbidden" | "refused" | "full";

/** 1009 is said by whoever takes no message of such a size at all. */
const ENDS: Record<number, Link> = { 1009: "full", 4403: "forbidden", 4404: "deleted", 4413: "full" };

const isLasting = (link: Link) => link === "connecting" || link === "live" || link === "lost";

/** Whether y-websocket is to try again by itself: not where the same would be said again. */
const shouldReconnect = ({ code }: CloseEvent) => !(code in ENDS || (code >= 4400 && code < 4500));

export class Connection {
  readonly link = signal<Link>("connecting");
  /** Whether what is shown is the document: before it has come, an empty text says nothing. */
  readonly hasText = signal(false);
  readonly readOnly = signal(isViewer.peek());
  private readonly provider: WebsocketProvider;
  private again: ReturnType<typeof setTimeout> | undefined;
  private expired = 0;
  private changedAt = 0;
  /** Whether something may have been written that the server does not have. */
  private isOwing = false;
  private isLeft = false;
  private isClosed = false;
  private readonly unfollow: () => void;

  constructor(
    private readonly id: string,
    private readonly doc: Y.Doc,
  ) {
    const server = `${location.origin.replace(/^http/, "ws")}/v1/documents`;
    // Without its BroadcastChannel: what another tab shows is what the server has committed.
    const options = { connect: false, disableBc: true, shouldReconnect };
    this.provider = new WebsocketProvider(server, `${id}/sync`, doc, options);
    this.listen();
    addEventListener("beforeunload", this.warn);
    // The browser knows of a lost network long before a connection does.
    this.unfollow = effect(() => {
      if (online.value) void untracked(() => this.open());
      else if (isLasting(this.link.peek())) this.end("lost");
    });
  }

  get awareness() {
    return this.provider.awareness;
  }

  /** Goes on without anybody looking while there is something to send, as long as the page is open. */
  leave(): void {
    this.isLeft = true;
    this.awareness.setLocalState(null);
    if (!this.isOwing || !isLasting(this.link.peek())) this.close();
  }

  private listen(): void {
    const { provider } = this;
    provider.on("sync", (isSynced: boolean) => isSynced && this.synced());
    provider.on("status", ({ status }: { status: string }) => {
      // Others have seen this state go; only a later one counts as new to them.
      if (status === "connected") this.awareness.setLocalState(this.awareness.getLocalState());
    });
    provider.on("connection-close", () => {
      if (isLasting(this.link.peek())) this.link.value = "lost";
      if (Date.now() - this.changedAt < SILENCE_MS) this.isOwing = true;
    });
    provider.on("closed", ({ code }: { code: number }) => this.closed(code));
    provider.messageHandlers[AUTH_MESSAGE] = (_encoder, decoder) =>
      readAuthMessage(decoder, this.doc, () => (this.readOnly.value = true));
    this.doc.on("update", (_update: Uint8Array, origin: unknown) => {
      if (origin === provider) return;
      this.changedAt = Date.now();
      if (this.link.peek() !== "live") this.isOwing = true;
    });
  }

  private async open(): Promise<void> {
    clearTimeout(this.again);
    try {
      const { ticket } = await mintTicket({ documentId: this.id });
      if (this.isClosed || !online.peek()) return;
      this.provider.params = { ticket };
      this.provider.connect();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (this.isClosed) return;
      if (!error.isPassing) return this.end(error.status === 404 ? "deleted" : "forbidden");
      this.link.value = "lost";
      this.openIn(AGAIN_MS);
    }
  }

  private openIn(ms: number): void {
    clearTimeout(this.again);
    this.again = setTimeout(() => void this.open(), ms);
  }

  private synced(): void {
    this.expired = 0;
    this.isOwing = false;
    this.hasText.value = true;
    this.link.value = "live";
    if (this.isLeft) this.close();
  }

  /** A ticket ends with its token: there may be another token by now. */
  private closed(code: number): void {
    if (code === EXPIRED) this.openIn(Math.min(100 * 2 ** this.expired++, 10_000));
    else this.end(ENDS[code] ?? "refused");
  }

  private end(how: Link): void {
    this.provider.disconnect();
    this.link.value = how;
    if (this.isLeft && !isLasting(how)) this.close();
  }

  private close(): void {
    this.isClosed = true;
    clearTimeout(this.again);
    this.unfollow();
    removeEventListener("beforeunload", this.warn);
    this.provider.destroy();
    this.doc.destroy();
  }

  private readonly warn = (event: BeforeUnloadEvent) => {
    if (this.isOwing && isLasting(this.link.peek())) event.preventDefault();
  };
}
