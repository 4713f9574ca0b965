import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { running, start, stop } from "../chat";
import { token } from "../session";
import { Chat } from "./Chat";
import { Shortcuts } from "./Shortcuts";
import { Sidebar } from "./Sidebar";
import { SignIn } from "./SignIn";

/** As in style.css: then the list is a drawer. */
const phone = matchMedia("(max-width: 48rem)");

export function App() {
  return token.value ? <SignedIn /> : <SignIn />;
}

function SignedIn() {
  const drawer = useSignal(false);
  const shortcuts = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    start();
    phone.addEventListener("change", () => (drawer.value = false));
    const press = (event: KeyboardEvent) => onKey(event, drawer, shortcuts.current);
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  }, []);
  return (
    <div class="app">
      <Sidebar drawer={drawer} onShortcuts={() => shortcuts.current?.showModal()} />
      <Chat drawer={drawer} />
      <Shortcuts dialog={shortcuts} />
    </div>
  );
}

function onKey(event: KeyboardEvent, drawer: { value: boolean }, shortcuts: HTMLDialogElement | null): void {
  // An open dialog, and whoever edits something, have their own use for keys.
  if (event.defaultPrevented || document.querySelector("dialog[open]")) return;
  const typing = event.target instanceof Element && event.target.matches("input, textarea, select");
  const isSearching = event.target instanceof Element && event.target.id === "search";
  const command = event.ctrlKey || event.metaKey;
  if (event.key === "Escape" && drawer.value) drawer.value = false;
  else if (event.key === "Escape" && running.value && !isSearching) void stop();
  else if (command && event.key.toLowerCase() === "k") {
    drawer.value = phone.matches;
    // Once the drawer can be reached.
    setTimeout(() => document.querySelector<HTMLInputElement>("#search")?.focus());
  } else if (event.altKey && event.code === "KeyN") {
    location.hash = "";
    drawer.value = false;
    document.querySelector<HTMLTextAreaElement>("#message")?.focus();
  } else if (event.key === "?" && !typing) shortcuts?.showModal();
  else if (event.key === "/" && !typing) document.querySelector<HTMLTextAreaElement>("#message")?.focus();
  else return;
  event.preventDefault();
}
