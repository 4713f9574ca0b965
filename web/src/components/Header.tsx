import { type Signal, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { change, conversation, remove } from "../chat";
import { openDocument } from "../documents";
import type { Conversation } from "../types";
import { IconButton } from "./Icon";
import { Rename } from "./Rename";

/** The open conversation's name, and what can be done with it. */
export function Header({ drawer }: { drawer: Signal<boolean> }) {
  const shown = conversation.value;
  const name = shown?.title || openDocument.value?.name;
  useEffect(() => {
    document.title = name ? `${name} – Throughline` : "Throughline";
  }, [name]);
  return (
    <header class="header">
      <IconButton
        icon="menu"
        label="Show the list"
        expanded={drawer.value}
        onClick={() => (drawer.value = true)}
        class="quiet phone-only"
      />
      {shown ? <Named key={shown.id} shown={shown} /> : <h1 class="title">New conversation</h1>}
    </header>
  );
}

function Named({ shown }: { shown: Conversation }) {
  const renaming = useSignal(false);
  const rename = (title: string) => title !== shown.title && void change(shown.id, { title });
  const end = () => (renaming.value = false);
  if (renaming.value) return <Rename label="Title" name={shown.title ?? ""} onSave={rename} onEnd={end} />;
  const pinned = shown.pinnedAt !== null;
  const archived = shown.archivedAt !== null;
  return (
    <>
      <h1 class="title" dir="auto">
        {shown.title || "Untitled"}
      </h1>
      <IconButton icon="edit" label="Rename" onClick={() => (renaming.value = true)} />
      <IconButton
        icon="pin"
        label={pinned ? "Unpin" : "Pin"}
        pressed={pinned}
        onClick={() => void change(shown.id, { pinned: !pinned })}
      />
      <IconButton
        icon="archive"
        label={archived ? "Take out of the archive" : "Archive"}
        pressed={archived}
        onClick={() => void change(shown.id, { archived: !archived })}
      />
      <Delete shown={shown} />
    </>
  );
}

function Delete({ shown }: { shown: Conversation }) {
  const dialog = useRef<HTMLDialogElement>(null);
  return (
    <>
      <IconButton icon="trash" label="Delete" onClick={() => dialog.current?.showModal()} />
      <dialog ref={dialog} aria-labelledby="delete-title">
        <h2 id="delete-title">Delete this conversation?</h2>
        <p dir="auto">{shown.title || "Untitled"}</p>
        <form method="dialog">
          <button class="quiet">Keep it</button>
          <button class="danger" onClick={() => void remove(shown.id)}>
            Delete
          </button>
        </form>
      </dialog>
    </>
  );
}
