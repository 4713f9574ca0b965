// Markdown, as long as its parser can follow: it reads a paragraph whole, again at each key that changes it.

import { markdown, markdownLanguage } from "@codemirror/lang-markdown";
import { Compartment, EditorState, type Extension, type Text } from "@codemirror/state";

/** Characters of one paragraph; a longer one is beyond what anybody reads as such. */
const LONGEST = 32_000;

/** The text without colours once a paragraph of it is too long, until the document is opened again. */
export function prose(text: string): Extension {
  const language = new Compartment();
  const isLong = text.split(/\n[ \t]*\n/).some(({ length }) => length > LONGEST);
  const turnOff = EditorState.transactionExtender.of(({ docChanged, changes, newDoc, startState }) => {
    const now = language.get(startState);
    if (!docChanged || (Array.isArray(now) && now.length === 0)) return null;
    let tooLong = false;
    changes.iterChangedRanges((_fromA, _toA, from, to) => (tooLong ||= isLongAround(newDoc, from, to)));
    return tooLong ? { effects: language.reconfigure([]) } : null;
  });
  return [language.of(isLong ? [] : markdown({ base: markdownLanguage, completeHTMLTags: false })), turnOff];
}

/** Whether a paragraph that a change touches is too long; looks no further than that takes. */
function isLongAround(doc: Text, from: number, to: number): boolean {
  let size = 0;
  const last = doc.lines;
  const isBlank = (number: number) => doc.line(number).text.trim() === "";
  let number = doc.lineAt(from).number;
  for (let before = number; before > 1 && !isBlank(before - 1) && size <= LONGEST; ) {
    before--;
    size += doc.line(before).length + 1;
  }
  for (const end = doc.lineAt(to).number; number <= last && size <= LONGEST; number++) {
    if (!isBlank(number)) size += doc.line(number).length + 1;
    else if (number >= end) break;
    else size = 0;
  }
  return size > LONGEST;
}
