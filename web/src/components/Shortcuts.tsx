import type { RefObject } from "preact";

const mac = navigator.platform.startsWith("Mac");

const KEYS: [keys: string[], does: string][] = [
  [["Enter"], "Send"],
  [["Shift", "Enter"], "New line"],
  [["Esc"], "Stop the answer; leave an edit"],
  [[mac ? "⌘" : "Ctrl", "K"], "Search the list"],
  [[mac ? "⌥" : "Alt", "N"], "New conversation"],
  [["/"], "To the message"],
  [[mac ? "⌘" : "Ctrl", "F"], "Search in a document"],
  [["Tab"], "Indent, in a document"],
  [["Esc", "Tab"], "Leave the document"],
  [["?"], "This list"],
];

export function Shortcuts({ dialog }: { dialog: RefObject<HTMLDialogElement | null> }) {
  return (
    <dialog ref={dialog} aria-labelledby="shortcuts-title">
      <h2 id="shortcuts-title">Keyboard</h2>
      <dl class="shortcuts">
        {KEYS.map(([keys, does]) => (
          <div key={does}>
            <dt>
              {keys.map((key) => (
                <kbd key={key}>{key}</kbd>
              ))}
            </dt>
            <dd>{does}</dd>
          </div>
        ))}
      </dl>
      <form method="dialog">
        <button class="primary">Close</button>
      </form>
    </dialog>
  );
}
