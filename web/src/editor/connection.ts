// The connection of a shared document to the server, by y-websocket. What is written without one is kept, and sent later.

import { effect, signal, untracked } from "@preact/signals";
import { readAuthMessage } from "y-protocols/auth";
import { WebsocketProvider } from "y-websocket";
import * as Y from "yjs";
import { ApiError, mintTicket } from "../api";
import { online } from "../requests";
import { isViewer, whoAndWhere } from "../session";
import { follow, forget } from "../unsent";

const AGAIN_MS = 3000;
/** So long y-websocket may take a dead connection for a living one. */
const SILENCE_MS = 30_000;
const AUTH_MESSAGE = 2;
const EXPIRED = 4401;
const CROWDED = 4429;
const CROWDED_MS = 10_000;

/** The last four are for good. */
export type Link = "connecting" | "live" | "lost" | "crowded" | "deleted" | "forbidden" | "refused" | "full";

/** 1009 is said by whoever takes no message of such a size at all. */
const ENDS: Record<number, Link> = { 1009: "full", 4403: "forbidden", 4404: "deleted", 4413: "full" };

/** Of documents that owe something, or are open: whoever comes back to one goes on with the same text. */
const held = new Map<string, Connection>();

export function connect(id: string): Connection {
  const known = held.get(id);
  known?.comeBack();
  return known ?? new Connection(id);
}

const LASTING: readonly Link[] = ["connecting", "live", "lost", "crowded"];
const isLasting = (link: Link) => LASTING.includes(link);

/** Whether y-websocket is to try again by itself: not where the same would be said again. */
const shouldReconnect = ({ code }: CloseEvent) => !(code in ENDS || (code >= 4400 && code < 4500));

export class Connection {
  readonly doc = new Y.Doc();
  readonly link = signal<Link>("connecting");
  /** Whether what is shown is the document: before it has come, an empty text says nothing. */
  readonly hasText = signal(false);
  readonly readOnly = signal(isViewer.peek());
  private readonly provider: WebsocketProvider;
  private again: ReturnType<typeof setTimeout> | undefined;
  private expired = 0;
  private changedAt = 0;
  /** Whether something may have been written that the server does not have. */
  private hasUnsent = false;
  /** Who has got the text, and may have changed it: nothing of that is sent in anybody else's name. */
  owner = "";
  private isLeft = false;
  private isClosed = false;
  private readonly unfollow: () => void;

  constructor(private readonly id: string) {
    held.set(id, this);
    follow(this);
    const server = `${location.origin.replace(/^http/, "ws")}/v1/documents`;
    // Without its BroadcastChannel: what another tab shows is what the server has committed.
    const options = { connect: false, disableBc: true, shouldReconnect };
    this.provider = new WebsocketProvider(server, `${id}/sync`, this.doc, options);
    this.listen();
    // The browser knows of a lost network long before a connection does.
    this.unfollow = effect(() => {
      const who = whoAndWhere.value;
      const isMine = who !== "" && (this.owner === "" || this.owner === who);
      if (online.value && isMine) untracked(() => this.canGoOn && void this.open());
      else if (isLasting(this.link.peek())) this.end("lost");
    });
  }

  get isOwing(): boolean {
    return this.hasUnsent && this.canGoOn;
  }

  /** What was deleted may be restored. */
  private get canGoOn(): boolean {
    return isLasting(this.link.peek()) || this.link.peek() === "deleted";
  }

  get awareness() {
    return this.provider.awareness;
  }

  /** Goes on without anybody looking while there is something to send, as long as the page is open. */
  leave(): void {
    this.isLeft = true;
    this.awareness.setLocalState(null);
    if (!this.isOwing) this.close();
  }

  comeBack(): void {
    this.isLeft = false;
    this.awareness.setLocalState({});
    if (this.link.peek() === "deleted") this.reopen();
  }

  /** After the document was restored: what was written here is merged with what the server has. */
  reopen(): void {
    this.link.value = "connecting";
    void this.open();
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
      if (Date.now() - this.changedAt < SILENCE_MS) this.hasUnsent = true;
    });
    provider.on("closed", ({ code }: { code: number }) => this.closed(code));
    provider.messageHandlers[AUTH_MESSAGE] = (_encoder, decoder) =>
      readAuthMessage(decoder, this.doc, () => (this.readOnly.value = true));
    this.doc.on("update", (_update: Uint8Array, origin: unknown) => {
      if (origin === provider) return;
      this.changedAt = Date.now();
      if (this.link.peek() !== "live") this.hasUnsent = true;
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
      // The page asks who it is.
      if (error.status === 401) return this.end("lost");
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
    this.hasUnsent = false;
    this.owner = whoAndWhere.peek();
    this.hasText.value = true;
    this.link.value = "live";
    if (this.isLeft) this.close();
  }

  /** A ticket ends with its token: there may be another token by now. */
  private closed(code: number): void {
    if (code === EXPIRED) this.openIn(Math.min(100 * 2 ** this.expired++, 10_000));
    else if (code === CROWDED) this.waitForRoom();
    else this.end(ENDS[code] ?? "refused");
  }

  private waitForRoom(): void {
    this.link.value = "crowded";
    this.openIn(CROWDED_MS);
  }

  private end(how: Link): void {
    this.provider.disconnect();
    this.link.value = how;
    if (this.isLeft && !this.canGoOn) this.close();
  }

  close(): void {
    this.isClosed = true;
    clearTimeout(this.again);
    this.unfollow();
    forget(this);
    if (held.get(this.id) === this) held.delete(this.id);
    this.provider.destroy();
    this.doc.destroy();
  }
}
