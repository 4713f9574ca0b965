import { useEffect, useRef } from "preact/hooks";
import { conversation, draft, running, send, sending, stop } from "../chat";
import { online } from "../requests";
import { IconButton } from "./Icon";
import { Picker } from "./Picker";

export function Composer() {
  const field = useRef<HTMLTextAreaElement>(null);
  const shown = conversation.value?.id;

  // A phone's keyboard would cover what one came to read.
  useEffect(() => {
    if (matchMedia("(pointer: fine)").matches) field.current?.focus();
  }, [shown]);

  const isReady = () => draft.value.trim() !== "" && !running.value && !sending.value && online.value;
  const submit = async () => {
    if (isReady() && (await send(draft.value))) draft.value = "";
  };
  return (
    <form
      class="composer"
      aria-label="Message"
      onSubmit={(event) => {
        event.preventDefault();
        void submit();
      }}
    >
      <textarea
        id="message"
        ref={field}
        rows={1}
        placeholder="Write a message"
        aria-label="Message"
        enterkeyhint="send"
        dir="auto"
        value={draft.value}
        readOnly={sending.value}
        onInput={(event) => (draft.value = event.currentTarget.value)}
        onKeyDown={(event) => {
          if (!isSending(event)) return;
          event.preventDefault();
          void submit();
        }}
      />
      <div class="row">
        <Picker />
        {running.value ? (
          <IconButton icon="stop" label="Stop (Esc)" onClick={() => void stop()} class="primary" />
        ) : (
          <IconButton icon="send" label="Send (Enter)" disabled={!isReady()} class="primary" />
        )}
      </div>
    </form>
  );
}

/** Enter alone, and not the one that ends the composition of a word. */
export function isSending(event: KeyboardEvent): boolean {
  return event.key === "Enter" && !event.shiftKey && !event.isComposing;
}
