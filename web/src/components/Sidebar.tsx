import { type Signal, useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { address } from "../address";
import { chooseWorkspace, leave, workspace, workspaces } from "../session";
import { mayLose } from "../unsent";
import { IconButton } from "./Icon";
import { Conversations, Documents } from "./Shelf";
import { Switch } from "./Switch";
import { ThemeButton } from "./ThemeButton";

interface Props {
  drawer: Signal<boolean>;
  onShortcuts: () => void;
}

/** On a phone it is a drawer above the conversation. */
export function Sidebar({ drawer, onShortcuts }: Props) {
  const aside = useRef<HTMLElement>(null);
  const shelf = useSignal<"conversations" | "documents">(firstShelf());
  const close = () => (drawer.value = false);
  useEffect(() => {
    if (drawer.value) aside.current?.querySelector("button")?.focus();
  }, [drawer.value]);
  const Shelf = shelf.value === "documents" ? Documents : Conversations;
  return (
    <>
      <aside ref={aside} class={drawer.value ? "sidebar open" : "sidebar"} aria-label="Lists">
        <div class="sidebar-head">
          <Switch
            label="What to list"
            options={{ conversations: "Conversations", documents: "Documents" }}
            value={shelf.value}
            onChange={(wanted) => (shelf.value = wanted)}
          />
          <IconButton icon="close" label="Close the list" onClick={close} class="quiet phone-only" />
        </div>
        <Shelf close={close} />
        <footer class="sidebar-foot">
          <Workspaces />
          <button type="button" class="quiet" onClick={onShortcuts}>
            Shortcuts <kbd>?</kbd>
          </button>
          <ThemeButton />
          <button type="button" class="quiet" onClick={leave}>
            Sign out
          </button>
        </footer>
      </aside>
      {drawer.value && <div class="backdrop" onClick={close} />}
    </>
  );
}

/** Who comes for a document alone finds it among the others. */
function firstShelf() {
  const { conversation, document } = address();
  return document && !conversation ? "documents" : "conversations";
}

function Workspaces() {
  if (workspaces.value.length < 2) return null;
  const choose = (event: Event) => {
    const field = event.currentTarget as HTMLSelectElement;
    if (!mayLose("Go to another workspace")) {
      field.value = workspace.value ?? "";
      return;
    }
    chooseWorkspace(field.value);
    // Nothing that is shown belongs to the other workspace.
    location.href = location.pathname;
  };
  return (
    <select aria-label="Workspace" value={workspace.value} onChange={choose}>
      {workspaces.value.map(({ id, name }) => (
        <option key={id} value={id}>
          {name}
        </option>
      ))}
    </select>
  );
}
