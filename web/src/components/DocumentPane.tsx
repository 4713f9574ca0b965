import { type Signal, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { address, go } from "../address";
import { mention, openDocument, remove, rename, restore, unnamed } from "../documents";
import type { Link } from "../editor/connection";
import type { Room } from "../editor/room";
import { CopyButton } from "../markdown";
import { isViewer } from "../session";
import type { Document } from "../types";
import { IconButton } from "./Icon";
import { Presence } from "./Presence";
import { Rename } from "./Rename";

const AGAIN_MS = 3000;

/** Whether somebody has come for the text of a document, which has not come itself yet. */
let isAwaited = address().document !== "";

/** The open document, beside the conversation. */
export function DocumentPane({ id, drawer }: { id: string; drawer: Signal<boolean> }) {
  const room = useSignal<Room | undefined>(undefined);
  /** A room that has refused somebody is left, and entered anew with what the server has. */
  const entered = useSignal(0);
  const place = useRef<HTMLDivElement>(null);
  useEffect(() => enterRoom(id, place.current!, room), [id, entered.value]);
  const hasText = room.value?.hasText.value ?? false;
  // Who comes by a link comes for the document; not who has begun with something else meanwhile.
  useEffect(() => {
    if (!hasText || !isAwaited || !matchMedia("(pointer: fine)").matches) return;
    isAwaited = false;
    const composer = document.querySelector<HTMLTextAreaElement>("#message");
    const isElsewhere = document.activeElement !== composer && document.activeElement !== document.body;
    if (!isElsewhere && !composer?.value) room.peek()?.focus();
  }, [hasText]);
  const shown = openDocument.value;
  const isMissing = !shown && room.value?.link.value === "deleted";
  return (
    <section class="document" aria-label="Document" inert={drawer.value}>
      <header class="header">
        <IconButton
          icon="menu"
          label="Show the list"
          expanded={drawer.value}
          onClick={() => (drawer.value = true)}
          class="quiet phone-only"
        />
        {shown ? <Named shown={shown} room={room.value} /> : <h2 class="title faint">{isMissing ? "No document" : "Loading…"}</h2>}
        <IconButton icon="close" label="Close the document" onClick={() => go({ document: "" })} />
      </header>
      <div key={entered.value} ref={place} class="paper" />
      <DocumentStatus id={id} room={room.value} onAgain={() => entered.value++} />
    </section>
  );
}

/** Loads what a room needs, enters it, and leaves it; what cannot be loaded now is tried again. */
function enterRoom(id: string, place: HTMLElement, room: Signal<Room | undefined>): () => void {
  let left = false;
  let again: ReturnType<typeof setTimeout> | undefined;
  const load = async () => {
    try {
      const { enter } = await import("../editor/room");
      if (!left) room.value = enter(id, place);
    } catch {
      if (!left) again = setTimeout(() => void load(), AGAIN_MS);
    }
  };
  void load();
  return () => {
    left = true;
    clearTimeout(again);
    room.peek()?.leave();
    room.value = undefined;
  };
}

function Named({ shown, room }: { shown: Document; room: Room | undefined }) {
  const renaming = useSignal(unnamed.peek() === shown.id);
  const end = () => {
    const isNew = unnamed.peek() === shown.id;
    unnamed.value = "";
    renaming.value = false;
    // With its name it has begun: what comes next is its text.
    if (isNew && room?.hasText.peek()) setTimeout(() => room.focus());
    else isAwaited = isNew;
  };
  const save = (name: string) => name !== shown.name && void rename(shown.id, name);
  if (renaming.value) return <Rename label="Name" name={shown.name} required onSave={save} onEnd={end} />;
  const toComposer = () => {
    mention(shown);
    // Once it can be reached.
    setTimeout(() => document.querySelector<HTMLTextAreaElement>("#message")?.focus());
  };
  return (
    <>
      <h2 class="title" dir="auto">
        {shown.name}
      </h2>
      {room && <Presence peers={room.peers.value} onGoTo={room.goTo} />}
      {!isViewer.value && room?.link.value !== "deleted" && (
        <>
          <IconButton icon="mention" label="Mention in message" onClick={toComposer} />
          <IconButton icon="edit" label="Rename document" onClick={() => (renaming.value = true)} />
          <IconButton icon="trash" label="Delete document" onClick={() => void remove(shown)} />
        </>
      )}
    </>
  );
}

const SAID: Record<Link, string> = {
  connecting: "Connecting…",
  live: "Live",
  lost: "Offline. What you write is kept here, and sent once you are back.",
  crowded:
    "Too many documents are open: close one, here or in another tab. What you write is kept here, and sent once there is room.",
  deleted: "This document was deleted. What it said last is still here.",
  forbidden: "You have no access to this document.",
  refused: "The last change was not accepted. From here on nothing is saved: copy what you need.",
  full: "The document is full, or the last change was too large. From here on nothing is saved: copy what you need.",
};

/** One line that is always there, as below the conversation. */
function DocumentStatus({ id, room, onAgain }: { id: string; room: Room | undefined; onAgain: () => void }) {
  const link = room?.link.value ?? "connecting";
  const isOver = ["deleted", "forbidden", "refused", "full"].includes(link);
  const restoreIt = async () => {
    if (await restore(id)) room?.reopen();
  };
  return (
    <div class={link === "connecting" || link === "live" ? "status" : "status trouble"} role="status">
      <span class={`link ${link}`}>
        {link === "deleted" && !room?.hasText.value ? "There is no such document here, or it was deleted." : SAID[link]}
        {link === "live" && room?.readOnly.value && ", to read only"}
      </span>
      {isOver && room?.hasText.value && <CopyButton text={room.text()} />}
      {link === "deleted" && !isViewer.value && (
        <button type="button" class="quiet" onClick={() => void restoreIt()}>
          Restore
        </button>
      )}
      {isOver && link !== "deleted" && (
        <button type="button" class="quiet" onClick={onAgain}>
          Open again
        </button>
      )}
    </div>
  );
}
