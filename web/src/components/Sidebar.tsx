import type { Signal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { conversation } from "../chat";
import { archived, list, listLoaded, loadList, loadMore, nextCursor, pinnedList, search } from "../list";
import { chooseWorkspace, leave, workspace, workspaces } from "../session";
import { isDark, toggleTheme } from "../theme";
import type { Conversation } from "../types";
import { Icon, IconButton } from "./Icon";

interface Props {
  drawer: Signal<boolean>;
  onShortcuts: () => void;
}

/** On a phone it is a drawer above the conversation. */
export function Sidebar({ drawer, onShortcuts }: Props) {
  const aside = useRef<HTMLElement>(null);
  const close = () => (drawer.value = false);
  useEffect(() => {
    if (drawer.value) aside.current?.querySelector("button")?.focus();
  }, [drawer.value]);
  return (
    <>
      <aside ref={aside} class={drawer.value ? "sidebar open" : "sidebar"} aria-label="Conversations">
        <div class="sidebar-head">
          <a class="button primary" href="#" onClick={close}>
            <Icon name="plus" /> New conversation
          </a>
          <IconButton icon="close" label="Close the list" onClick={close} class="quiet phone-only" />
        </div>
        <SearchField />
        <nav class="lists" aria-label="Conversations" onClick={close}>
          {pinnedList.value.length > 0 && <List title="Pinned" items={pinnedList.value} />}
          <List title={archived.value ? "Archived" : "Conversations"} items={list.value} />
          {listLoaded.value && list.value.length + pinnedList.value.length === 0 && (
            <p class="faint">{search.value ? "No title contains this." : archived.value ? "The archive is empty." : "Nothing here yet."}</p>
          )}
        </nav>
        {nextCursor.value && (
          <button type="button" class="quiet" onClick={() => void loadMore()}>
            Show more
          </button>
        )}
        <footer class="sidebar-foot">
          <Workspaces />
          <button type="button" class="quiet" onClick={onShortcuts}>
            Shortcuts <kbd>?</kbd>
          </button>
          <IconButton
            icon={isDark() ? "sun" : "moon"}
            label={isDark() ? "Light colours" : "Dark colours"}
            onClick={toggleTheme}
          />
          <button type="button" class="quiet" onClick={leave}>
            Sign out
          </button>
        </footer>
      </aside>
      {drawer.value && <div class="backdrop" onClick={close} />}
    </>
  );
}

function SearchField() {
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  const type = (event: InputEvent) => {
    search.value = (event.currentTarget as HTMLInputElement).value;
    clearTimeout(timer.current);
    timer.current = setTimeout(() => void loadList(), 200);
  };
  const toggle = () => {
    archived.value = !archived.value;
    void loadList();
  };
  return (
    <search class="search">
      <input
        id="search"
        type="search"
        placeholder="Search titles"
        aria-label="Search titles"
        maxLength={200}
        value={search.value}
        onInput={type}
      />
      <IconButton icon="archive" label="Show the archive" pressed={archived.value} onClick={toggle} />
    </search>
  );
}

function List({ title, items }: { title: string; items: Conversation[] }) {
  if (items.length === 0) return null;
  return (
    <section>
      <h2>{title}</h2>
      <ul>
        {items.map(({ id, title: name }) => (
          <li key={id}>
            <a href={`#/${id}`} aria-current={id === conversation.value?.id ? "page" : undefined} dir="auto">
              {name || "Untitled"}
            </a>
          </li>
        ))}
      </ul>
    </section>
  );
}

function Workspaces() {
  if (workspaces.value.length < 2) return null;
  const choose = (event: Event) => {
    chooseWorkspace((event.currentTarget as HTMLSelectElement).value);
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
