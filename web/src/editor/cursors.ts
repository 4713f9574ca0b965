// Where the others are. y-codemirror.next shows them by style attributes, which the page's policy forbids; what is sent
// is the same: `cursor` with relative positions.

import { Annotation, type Range, RangeSet } from "@codemirror/state";
import { Decoration, type DecorationSet, EditorView, ViewPlugin, type ViewUpdate, WidgetType } from "@codemirror/view";
import type { Awareness } from "y-protocols/awareness";
import * as Y from "yjs";
import { readPeer } from "./presence";

const moved = Annotation.define<boolean>();

class Caret extends WidgetType {
  constructor(
    readonly client: number,
    readonly color: string,
    readonly name: string,
    readonly isAgent: boolean,
    /** Where it stands in the shared text: once it moves, it is another one, which says its name again. */
    readonly at: string,
  ) {
    super();
  }

  override eq({ client, color, name, isAgent, at }: Caret): boolean {
    const isSame = client === this.client && at === this.at;
    return isSame && color === this.color && name === this.name && isAgent === this.isAgent;
  }

  override toDOM(): HTMLElement {
    const caret = document.createElement("span");
    caret.className = this.isAgent ? "caret agent" : "caret";
    caret.style.setProperty("--peer", this.color);
    // Written by the style sheet: it is no part of the text, for nobody.
    caret.dataset["name"] = this.name;
    return caret;
  }

  override ignoreEvent(): boolean {
    return true;
  }
}

/** Tells the others where the cursor is, and shows theirs. */
export function cursors(text: Y.Text, awareness: Awareness) {
  class Cursors {
    decorations: DecorationSet = RangeSet.empty;
    private readonly listen: (change: { added: number[]; updated: number[]; removed: number[] }) => void;

    constructor(view: EditorView) {
      this.listen = ({ added, updated, removed }) => {
        const isMine = (client: number) => client === awareness.clientID;
        if (![...added, ...updated, ...removed].every(isMine)) view.dispatch({ annotations: moved.of(true) });
      };
      awareness.on("change", this.listen);
      this.decorations = show();
    }

    update({ view, docChanged, selectionSet, focusChanged, transactions }: ViewUpdate): void {
      if (docChanged || selectionSet || focusChanged) tell(view);
      const isMoved = transactions.some((transaction) => transaction.annotation(moved));
      if (docChanged || isMoved) this.decorations = show();
    }

    destroy(): void {
      awareness.off("change", this.listen);
    }
  }

  function tell(view: EditorView): void {
    if (!view.hasFocus) return;
    const { anchor, head } = view.state.selection.main;
    const at = (index: number) => Y.createRelativePositionFromTypeIndex(text, index);
    const cursor = { anchor: at(anchor), head: at(head) };
    const told: typeof cursor | undefined = awareness.getLocalState()?.["cursor"];
    const isSame = (["anchor", "head"] as const).every(
      (end) => told && Y.compareRelativePositions(Y.createRelativePositionFromJSON(told[end]), cursor[end]),
    );
    if (!isSame) awareness.setLocalStateField("cursor", cursor);
  }

  function show(): DecorationSet {
    const found: Range<Decoration>[] = [];
    for (const [client, state] of awareness.getStates()) {
      if (client === awareness.clientID) continue;
      const [anchor, head] = [indexOf(text, state["cursor"]?.anchor), indexOf(text, state["cursor"]?.head)];
      if (anchor === null || head === null) continue;
      const { name, color, isAgent } = readPeer(state);
      const [from, to] = [Math.min(anchor, head), Math.max(anchor, head)];
      const marked = { class: "selected", attributes: { style: `--peer: ${color}` } };
      if (from < to) found.push(Decoration.mark(marked).range(from, to));
      const widget = new Caret(client, color, name, isAgent, JSON.stringify(state["cursor"].head));
      found.push(Decoration.widget({ widget, side: head > anchor ? -1 : 1 }).range(head));
    }
    return Decoration.set(found, true);
  }

  return ViewPlugin.fromClass(Cursors, { decorations: ({ decorations }) => decorations });
}

/** Where a relative position is now. Null for what is no position in this text, whatever it is. */
export function indexOf(text: Y.Text, position: unknown): number | null {
  if (typeof position !== "object" || position === null) return null;
  try {
    const relative = Y.createRelativePositionFromJSON(position);
    const absolute = Y.createAbsolutePositionFromRelativePosition(relative, text.doc!);
    return absolute?.type === text ? Math.min(absolute.index, text.length) : null;
  } catch {
    return null;
  }
}
