// The editor in the colours of the page, whose variables reach into it.

import { HighlightStyle, syntaxHighlighting } from "@codemirror/language";
import type { Extension } from "@codemirror/state";
import { EditorView } from "@codemirror/view";
import { tags } from "@lezer/highlight";

const look = EditorView.theme({
  "&": { height: "100%", color: "var(--ink)", backgroundColor: "transparent" },
  "&.cm-focused": { outline: "none" },
  ".cm-scroller": { fontFamily: "var(--sans)", fontSize: "1rem", lineHeight: "1.7", overflow: "hidden auto" },
  ".cm-content": {
    maxWidth: "calc(var(--measure) + 3rem)",
    margin: "0 auto",
    padding: "2rem 1.5rem 40vh",
    caretColor: "var(--accent)",
  },
  ".cm-line": { padding: "0" },
  ".cm-placeholder": { color: "var(--faint)" },
  "& ::selection": { backgroundColor: "color-mix(in srgb, var(--accent) 28%, transparent)" },
  ".selected": { backgroundColor: "color-mix(in srgb, var(--peer) 22%, transparent)" },
  ".caret": {
    position: "relative",
    borderLeft: "2px solid light-dark(var(--peer), color-mix(in srgb, var(--peer), white 35%))",
    marginLeft: "-1px",
    marginRight: "-1px",
  },
  ".caret::before": {
    content: "attr(data-name)",
    position: "absolute",
    bottom: "calc(100% - 0.15em)",
    left: "-2px",
    zIndex: "1",
    padding: "0.1rem 0.375rem",
    borderRadius: "0.375rem 0.375rem 0.375rem 0",
    backgroundColor: "var(--peer)",
    color: "#fff",
    font: "600 0.6875rem/1.3 var(--sans)",
    whiteSpace: "nowrap",
    pointerEvents: "none",
    userSelect: "none",
  },
  ".caret:not(.agent)::before": { animation: "leave 0.4s 3s ease-out both" },
  "@keyframes leave": { to: { opacity: "0" } },
  ".caret.agent::before": { content: '"✦ " attr(data-name)' },
  ".cm-line:first-child .caret::before": { top: "calc(100% - 0.15em)", bottom: "auto", borderRadius: "0 0.375rem 0.375rem" },
  "@keyframes arrive": { from: { backgroundColor: "color-mix(in srgb, var(--accent) 30%, transparent)" } },
  ".arrived": { borderRadius: "0.2rem", animation: "arrive 1.5s ease-out" },
  "@media (prefers-reduced-motion: reduce)": { ".arrived": { animation: "none" } },
});

const field = {
  minHeight: "2rem",
  margin: "0",
  padding: "0 0.5rem",
  border: "1px solid var(--line)",
  borderRadius: "0.4375rem",
  backgroundColor: "var(--paper)",
  backgroundImage: "none",
  color: "var(--ink)",
  font: "inherit",
};

const searching = EditorView.theme({
  ".cm-panels": { backgroundColor: "var(--panel)", color: "var(--ink)" },
  ".cm-panels-top": { borderBottom: "1px solid var(--line)" },
  ".cm-panel.cm-search": {
    display: "flex",
    flexWrap: "wrap",
    alignItems: "center",
    gap: "0.375rem",
    padding: "0.5rem 2.5rem 0.5rem 0.75rem",
    font: "0.8125rem/1.4 var(--sans)",
  },
  // One cursor is all that there is.
  ".cm-panel.cm-search br, .cm-panel.cm-search [name=select]": { display: "none" },
  ".cm-panel.cm-search .cm-textfield": { ...field, flex: "1 1 5rem", minWidth: "0", fontSize: "inherit" },
  ".cm-panel.cm-search .cm-button": { ...field, fontSize: "inherit", cursor: "pointer", color: "var(--faint)" },
  ".cm-panel.cm-search .cm-button:hover": { backgroundColor: "var(--raised)", color: "var(--ink)" },
  ".cm-panel.cm-search label": { display: "flex", alignItems: "center", color: "var(--faint)", fontSize: "inherit" },
  ".cm-panel.cm-search [name=close]": {
    top: "0.5rem",
    right: "0.75rem",
    width: "2rem",
    height: "2rem",
    margin: "0",
    color: "var(--faint)",
    fontSize: "1.25rem",
    cursor: "pointer",
  },
  ".cm-searchMatch": { backgroundColor: "color-mix(in srgb, var(--accent) 20%, transparent)", borderRadius: "0.2rem" },
  ".cm-searchMatch-selected": { backgroundColor: "color-mix(in srgb, var(--accent) 45%, transparent)" },
  "& :focus-visible:not(.cm-content)": { outline: "2px solid var(--accent)", outlineOffset: "1px" },
});

const words = HighlightStyle.define([
  { tag: tags.heading1, fontSize: "1.5rem", fontWeight: "650", lineHeight: "1.5" },
  { tag: tags.heading2, fontSize: "1.25rem", fontWeight: "650" },
  { tag: [tags.heading3, tags.heading4, tags.heading5, tags.heading6], fontSize: "1.0625rem", fontWeight: "650" },
  { tag: tags.strong, fontWeight: "650" },
  { tag: tags.emphasis, fontStyle: "italic" },
  { tag: tags.strikethrough, textDecoration: "line-through" },
  { tag: tags.link, color: "var(--accent)" },
  { tag: [tags.monospace, tags.url], fontFamily: "var(--mono)", fontSize: "0.875em" },
  { tag: [tags.quote, tags.url, tags.comment], color: "var(--faint)" },
  // The marks of markdown: there, and out of the way.
  { tag: [tags.processingInstruction, tags.contentSeparator, tags.labelName], color: "var(--faint)", fontWeight: "400" },
]);

export const theme: Extension = [look, searching, syntaxHighlighting(words)];
