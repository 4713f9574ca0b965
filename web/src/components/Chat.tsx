import { type Signal, useSignal } from "@preact/signals";
import { useLayoutEffect, useRef } from "preact/hooks";
import { connected, conversation, live, loading, running, turns } from "../chat";
import { notice, online, type Undoable, undoable, unreachable } from "../requests";
import { Composer } from "./Composer";
import { Header } from "./Header";
import { IconButton } from "./Icon";
import { TurnView } from "./Turn";

const NEAR_PX = 48;

export function Chat({ drawer }: { drawer: Signal<boolean> }) {
  const scroller = useRef<HTMLDivElement>(null);
  const atBottom = useSignal(true);
  const shown = conversation.value?.id;
  const toBottom = () => scroller.current?.scrollTo({ top: scroller.current.scrollHeight });

  const onScroll = () => {
    const { scrollHeight, scrollTop, clientHeight } = scroller.current!;
    atBottom.value = scrollHeight - scrollTop - clientHeight < NEAR_PX;
  };
  // Who reads further up is left there; who is at the end stays at the end.
  useLayoutEffect(() => {
    if (atBottom.peek()) toBottom();
  }, [turns.value, live.value]);
  // Another conversation, or the begin of an answer: to its end. Not the end of one: somebody may be reading it.
  const followed = live.value?.run.id;
  const before = useRef(shown);
  useLayoutEffect(() => {
    if (followed || before.current !== shown) {
      atBottom.value = true;
      toBottom();
    }
    before.current = shown;
  }, [shown, followed]);

  return (
    <main class="chat" inert={drawer.value}>
      <Header drawer={drawer} />
      <div class="scroller" ref={scroller} onScroll={onScroll} tabIndex={-1}>
        <div class="turns" role="log" aria-label="Messages" aria-live="polite" aria-busy={running.value}>
          {turns.value.map((turn, index) => (
            <TurnView key={turn.question?.id ?? index} turn={turn} isLast={index === turns.value.length - 1} />
          ))}
        </div>
        {turns.value.length === 0 && <Welcome />}
      </div>
      <div class="below">
        {!atBottom.value && (
          <IconButton icon="down" label="To the latest" onClick={toBottom} class="to-bottom" />
        )}
        <Composer />
        <StatusLine />
      </div>
    </main>
  );
}

function Welcome() {
  if (loading.value) return <p class="welcome faint">Loading…</p>;
  return (
    <div class="welcome">
      <h2>What shall we do?</h2>
      <p class="faint">
        An answer goes on without this page: close it, lose the network, come back, and it is all there.
      </p>
    </div>
  );
}

/** One line that is always there, so that nothing moves when there is something to say. */
function StatusLine() {
  const trouble = !online.value
    ? notice.value || (running.value ? "You are offline. The answer goes on without you." : "You are offline.")
    : unreachable.value || !connected.value
      ? "The connection is lost. Trying again…"
      : notice.value;
  if (!trouble && undoable.value) return <Undo of={undoable.value} />;
  const hint = running.value
    ? "Esc stops the answer; then Enter sends."
    : "Enter sends, Shift+Enter breaks the line.";
  return (
    <div class={trouble ? "status trouble" : "status"} role="status">
      <span>{trouble || hint}</span>
      {trouble && trouble === notice.value && (
        <IconButton icon="close" label="Close" onClick={() => (notice.value = "")} />
      )}
    </div>
  );
}

function Undo({ of: { done, undo } }: { of: Undoable }) {
  return (
    <div class="status trouble" role="status">
      <span dir="auto">{done}</span>
      <button type="button" class="quiet" onClick={undo}>
        Undo
      </button>
      <IconButton icon="close" label="Close" onClick={() => (undoable.value = null)} />
    </div>
  );
}
