// What others have just written is lit for a moment, so that one sees where the document changes.

import { type Extension, StateEffect, StateField } from "@codemirror/state";
import { Decoration, type DecorationSet, EditorView, ViewPlugin, type ViewUpdate } from "@codemirror/view";
import { ySyncAnnotation } from "y-codemirror.next";

const LIT_MS = 1500;

const gone = StateEffect.define<object>();

/** `isLive`: what comes before is the document itself. */
export function arrivals(isLive: () => boolean): Extension {
  const lit = StateField.define<DecorationSet>({
    create: () => Decoration.none,
    update(marks, transaction) {
      let now = marks.map(transaction.changes);
      for (const effect of transaction.effects) {
        if (effect.is(gone)) now = now.update({ filter: (_from, _to, { spec }) => spec.of !== effect.value });
      }
      if (!transaction.docChanged || !transaction.annotation(ySyncAnnotation) || !isLive()) return now;
      const mark = Decoration.mark({ class: "arrived", of: transaction });
      transaction.changes.iterChangedRanges((_fromA, _toA, from, to) => {
        if (from < to) now = now.update({ add: [mark.range(from, to)], sort: true });
      });
      return now;
    },
    provide: (field) => EditorView.decorations.from(field),
  });
  const fade = ViewPlugin.define((view) => {
    const timers = new Set<ReturnType<typeof setTimeout>>();
    const update = ({ transactions }: ViewUpdate) => {
      for (const transaction of transactions) {
        if (!transaction.docChanged || !transaction.annotation(ySyncAnnotation)) continue;
        const timer = setTimeout(() => {
          timers.delete(timer);
          view.dispatch({ effects: gone.of(transaction) });
        }, LIT_MS);
        timers.add(timer);
      }
    };
    return { update, destroy: () => timers.forEach(clearTimeout) };
  });
  return [lit, fade];
}
