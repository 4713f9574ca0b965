// A document's room: its shared text, the editor on it, and who is there. It is the page's largest part, so it is loaded
// once a document is opened.

import { computed, effect, type ReadonlySignal, signal } from "@preact/signals";
import { myName } from "../session";
import { connect, type Link } from "./connection";
import { indexOf } from "./cursors";
import { edit } from "./editor";
import { type Peer, peersIn, showMyself } from "./presence";

export interface Room {
  link: ReadonlySignal<Link>;
  peers: ReadonlySignal<Peer[]>;
  readOnly: ReadonlySignal<boolean>;
  text: () => string;
  /** Goes to where somebody is. */
  goTo: (client: number) => void;
  /** Goes on after the document was restored. */
  reopen: () => void;
  hasText: ReadonlySignal<boolean>;
  focus: () => void;
  leave: () => void;
}

export function enter(id: string, place: HTMLElement): Room {
  const connection = connect(id);
  const text = connection.doc.getText("content");
  const { link, awareness, readOnly, hasText } = connection;
  const editor = edit(text, awareness, place, () => link.peek() === "live");
  const isKept = computed(() => ["live", "lost", "crowded"].includes(link.value));
  const unfollow = effect(() => editor.setWritable(hasText.value && isKept.value && !readOnly.value));
  const peers = signal<Peer[]>([]);
  const look = () => (peers.value = peersIn(awareness));
  awareness.on("change", look);
  showMyself(awareness, myName.peek());
  const goTo = (client: number) => {
    const index = indexOf(text, awareness.getStates().get(client)?.["cursor"]?.head);
    if (index !== null) editor.show(index);
  };
  const leave = () => {
    unfollow();
    awareness.off("change", look);
    editor.destroy();
    connection.leave();
  };
  return { link, peers, readOnly, text: () => text.toString(), goTo, reopen: () => connection.reopen(), hasText, focus: () => editor.focus(), leave };
}
