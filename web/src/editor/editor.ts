// CodeMirror on the shared text of a room.

import { defaultKeymap, indentWithTab } from "@codemirror/commands";
import { search, searchKeymap } from "@codemirror/search";
import { Compartment, EditorState, type Extension } from "@codemirror/state";
import { EditorView, keymap, placeholder } from "@codemirror/view";
import { yCollab, yUndoManagerKeymap } from "y-codemirror.next";
import type { Awareness } from "y-protocols/awareness";
import type * as Y from "yjs";
import { arrivals } from "./arrivals";
import { cursors } from "./cursors";
import { prose } from "./prose";
import { theme } from "./theme";

/** What CodeMirror turns off, since most that it shows is code. */
const AS_PROSE = { spellcheck: "true", autocorrect: "on", autocapitalize: "sentences", writingsuggestions: "true" };

/** The search as the rest of the page writes its labels. */
const WORDS = {
  next: "Next",
  previous: "Previous",
  replace: "Replace",
  "replace all": "Replace all",
  "match case": "Match case",
  regexp: "Pattern",
  "by word": "Whole words",
};

export interface Editor {
  /** Before its text has come, and for who may only read, nothing can be typed; all can be read and copied. */
  setWritable: (now: boolean) => void;
  focus: () => void;
  /** Scrolls to a place. */
  show: (index: number) => void;
  destroy: () => void;
}

export function edit(text: Y.Text, awareness: Awareness, place: HTMLElement, isLive: () => boolean): Editor {
  // In a root of its own CodeMirror adopts its style sheets; in the page's it would write <style>, which is forbidden.
  const root = place.shadowRoot ?? place.attachShadow({ mode: "open" });
  const writable = new Compartment();
  const state = EditorState.create({
    doc: text.toString(),
    extensions: [
      // A position counts the same here and in the shared text: there "\r\n" is two characters, and so it is here.
      EditorState.lineSeparator.of("\n"),
      EditorView.clipboardInputFilter.of((pasted) => pasted.replace(/\r\n?/g, "\n")),
      EditorView.lineWrapping,
      EditorView.contentAttributes.of({ "aria-label": "Document", ...AS_PROSE }),
      prose(text.toString()),
      // The browser's own search finds only the lines that are drawn.
      search({ top: true }),
      EditorState.phrases.of(WORDS),
      keymap.of([...yUndoManagerKeymap, ...searchKeymap, indentWithTab, ...defaultKeymap]),
      yCollab(text, null),
      cursors(text, awareness),
      arrivals(isLive),
      theme,
      writable.of(locked(true)),
    ],
  });
  const view = new EditorView({ state, parent: root, root });
  return {
    setWritable: (now) => view.dispatch({ effects: writable.reconfigure(locked(!now)) }),
    show: (index) => view.dispatch({ effects: EditorView.scrollIntoView(index, { y: "center" }) }),
    focus: () => view.focus(),
    destroy: () => view.destroy(),
  };
}

function locked(now: boolean): Extension {
  if (!now) return placeholder("Write, or ask an agent to.");
  // Still a stop of the Tab key: it can be scrolled, selected and copied.
  const focusable = EditorView.contentAttributes.of({ tabindex: "0" });
  return [EditorState.readOnly.of(true), EditorView.editable.of(false), focusable];
}
