import type { ComponentChildren } from "preact";
import { useEffect, useRef } from "preact/hooks";
import { linkTo } from "../address";
import { conversation } from "../chat";
import { documentId, documents, make, pane } from "../documents";
import { archived, conversations } from "../list";
import type { Listing } from "../listing";
import { isViewer } from "../session";
import { Icon, IconButton } from "./Icon";

export function Conversations({ close }: { close: () => void }) {
  const { items, search, load } = conversations;
  const shown = items.value.map(({ id, title, pinnedAt }) => ({
    id,
    name: title || "Untitled",
    isPinned: pinnedAt !== null,
    href: linkTo({ conversation: id }),
    isOpen: id === conversation.value?.id,
  }));
  const open = () => {
    pane.value = "conversation";
    close();
  };
  const toggle = () => {
    archived.value = !archived.value;
    void load();
  };
  const nothing = search.value ? "No title contains this." : archived.value ? "The archive is empty." : "Nothing here yet.";
  return (
    <>
      <a class="button primary" href={linkTo({ conversation: "" })} onClick={open}>
        <Icon name="plus" /> New conversation
      </a>
      <SearchField label="Search titles" of={conversations}>
        <IconButton icon="archive" label="Show the archive" pressed={archived.value} onClick={toggle} />
      </SearchField>
      <Shelf label="Conversations" of={conversations} nothing={nothing} onOpen={open}>
        <List title="Pinned" items={shown.filter(({ isPinned }) => isPinned)} />
        <List title={archived.value ? "Archived" : "Conversations"} items={shown.filter(({ isPinned }) => !isPinned)} />
      </Shelf>
    </>
  );
}

export function Documents({ close }: { close: () => void }) {
  const { items, search, load } = documents;
  useEffect(() => void load(), []);
  const shown = items.value.map(({ id, name }) => ({
    id,
    name,
    href: linkTo({ document: id }),
    isOpen: id === documentId.value,
  }));
  const open = () => {
    pane.value = "document";
    close();
  };
  const begin = async () => {
    if (await make()) open();
  };
  return (
    <>
      {!isViewer.value && (
        <button type="button" class="primary" onClick={() => void begin()}>
          <Icon name="plus" /> New document
        </button>
      )}
      <SearchField label="Search documents" of={documents} />
      <Shelf
        label="Documents"
        of={documents}
        nothing={search.value ? "No document has these words." : "Nothing here yet."}
        onOpen={open}
      >
        <List title="Documents" items={shown} />
      </Shelf>
    </>
  );
}

interface ShelfProps {
  label: string;
  of: Listing<{ id: string }>;
  nothing: string;
  onOpen: () => void;
  children: ComponentChildren;
}

function Shelf({ label, of, nothing, onOpen, children }: ShelfProps) {
  return (
    <>
      <nav class="lists" aria-label={label} onClick={onOpen}>
        {children}
        {of.loaded.value && of.items.value.length === 0 && <p class="faint">{nothing}</p>}
      </nav>
      {of.nextCursor.value && (
        <button type="button" class="quiet" onClick={() => void of.loadMore()}>
          Show more
        </button>
      )}
    </>
  );
}

interface SearchProps {
  label: string;
  of: Pick<Listing<unknown>, "search" | "load">;
  children?: ComponentChildren;
}

function SearchField({ label, of, children }: SearchProps) {
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  const type = (event: InputEvent) => {
    of.search.value = (event.currentTarget as HTMLInputElement).value;
    clearTimeout(timer.current);
    timer.current = setTimeout(() => void of.load(), 200);
  };
  return (
    <search class="search">
      <input
        id="search"
        type="search"
        placeholder={label}
        aria-label={label}
        maxLength={200}
        value={of.search.value}
        onInput={type}
      />
      {children}
    </search>
  );
}

interface Entry {
  id: string;
  name: string;
  href: string;
  isOpen: boolean;
}

function List({ title, items }: { title: string; items: Entry[] }) {
  if (items.length === 0) return null;
  return (
    <section>
      <h2>{title}</h2>
      <ul>
        {items.map(({ id, name, href, isOpen }) => (
          <li key={id}>
            <a href={href} aria-current={isOpen ? "page" : undefined} dir="auto">
              {name}
            </a>
          </li>
        ))}
      </ul>
    </section>
  );
}
