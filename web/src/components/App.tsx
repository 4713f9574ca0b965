import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { go } from "../address";
import { running, start, stop } from "../chat";
import { documentId, pane, startDocuments } from "../documents";
import { readAgain } from "../requests";
import { token } from "../session";
import { Chat } from "./Chat";
import { DocumentPane } from "./DocumentPane";
import { Shortcuts } from "./Shortcuts";
import { Sidebar } from "./Sidebar";
import { SignIn } from "./SignIn";
import { Switch } from "./Switch";

/** As in style.css: then the list is a drawer. */
const phone = matchMedia("(max-width: 48rem)");

export function App() {
  return token.value ? <SignedIn /> : <SignIn />;
}

let isStarted = false;

function SignedIn() {
  const drawer = useSignal(false);
  const shortcuts = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    // Who signs in again finds the page as it was.
    if (isStarted) readAgain();
    else {
      isStarted = true;
      start();
      startDocuments();
    }
    phone.addEventListener("change", () => (drawer.value = false));
    const press = (event: KeyboardEvent) => onKey(event, drawer, shortcuts.current);
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, []);
  const id = documentId.value;
  return (
    <div class={id ? `app with-document at-${pane.value}` : "app"}>
      <Sidebar drawer={drawer} onShortcuts={() => shortcuts.current?.showModal()} />
      {id && <PaneSwitch drawer={drawer.value} />}
      <Chat drawer={drawer} />
      {id && <DocumentPane key={id} id={id} drawer={drawer} />}
      <Shortcuts dialog={shortcuts} />
    </div>
  );
}

/** Where there is no room for both. */
function PaneSwitch({ drawer }: { drawer: boolean }) {
  return (
    <div class="pane-switch" inert={drawer}>
      <Switch
        label="What to show"
        options={{ conversation: "Conversation", document: "Document" }}
        value={pane.value}
        onChange={(wanted) => (pane.value = wanted)}
      />
    </div>
  );
}

function onKey(event: KeyboardEvent, drawer: { value: boolean }, shortcuts: HTMLDialogElement | null): void {
  // An open dialog, and whoever edits something, have their own use for keys.
  if (event.defaultPrevented || document.querySelector("dialog[open]")) return;
  const target = event.composedPath()[0];
  const editing = target instanceof HTMLElement && target.isContentEditable;
  const typing = editing || (target instanceof Element && target.matches("input, textarea, select"));
  const isSearching = target instanceof Element && target.id === "search";
  const command = event.ctrlKey || event.metaKey;
  if (event.key === "Escape" && drawer.value) drawer.value = false;
  else if (event.key === "Escape" && running.value && !isSearching && !editing) void stop();
  else if (command && event.key.toLowerCase() === "k") {
    drawer.value = phone.matches;
    // Once the drawer can be reached.
    setTimeout(() => document.querySelector<HTMLInputElement>("#search")?.focus());
  } else if (event.altKey && event.code === "KeyN") {
    go({ conversation: "" });
    drawer.value = false;
    pane.value = "conversation";
    document.querySelector<HTMLTextAreaElement>("#message")?.focus();
  } else if (event.key === "?" && !typing) shortcuts?.showModal();
  else if (event.key === "/" && !typing) document.querySelector<HTMLTextAreaElement>("#message")?.focus();
  else return;
  event.preventDefault();
}
