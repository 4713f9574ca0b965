import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import { conversation, edit, live, regenerate, running, sending, type Turn } from "../chat";
import { CopyButton, Markdown } from "../markdown";
import { callsWithResults, type Held, NOTHING } from "../stream";
import type { Message, Run, RunError, Usage } from "../types";
import { isSending } from "./Composer";
import { IconButton } from "./Icon";

/** A question, and all that answers it: what is stored, then what the unfinished step says. */
export function TurnView({ turn, isLast }: { turn: Turn; isLast: boolean }) {
  const { question, answers } = turn;
  const said = answers.filter(({ role }) => role !== "tool");
  const held = live.value?.run.triggerMessageId === question?.id ? live.value?.held : undefined;
  const last = !held && conversation.value?.lastRun?.triggerMessageId === question?.id ? conversation.value?.lastRun : null;
  const unfinished = held ?? (last?.partialText ? { ...NOTHING, text: last.partialText } : undefined);
  return (
    <section class="turn">
      {question && <Question key={question.editedContent} message={question} />}
      <div class="answer">
        {said.map((message, index) => (
          // Keyed by its place, which it had while it was streamed: what somebody has unfolded stays unfolded.
          <Step key={index} message={message} all={answers} isOver={!held || held.end !== undefined} />
        ))}
        {unfinished && <Unfinished key={said.length} held={unfinished} />}
        <Ending key="end" end={held ? endOfStream(held) : endOfRun(last)} />
      </div>
      {question && said.length + (last ? 1 : 0) > 0 && !held && (
        <Foot question={question} said={said} rest={unfinished?.text} canRegenerate={isLast} />
      )}
    </section>
  );
}

function Question({ message }: { message: Message }) {
  const editing = useSignal(false);
  if (editing.value) return <Edit message={message} onEnd={() => (editing.value = false)} />;
  return (
    <div class="question">
      <p class="bubble" dir="auto">
        {message.editedContent ?? message.content}
      </p>
      {!running.value && (
        <IconButton icon="edit" label="Edit" onClick={() => (editing.value = true)} class="quiet on-hover" />
      )}
    </div>
  );
}

function Edit({ message, onEnd }: { message: Message; onEnd: () => void }) {
  const text = useSignal(message.editedContent ?? message.content);
  const field = useRef<HTMLTextAreaElement>(null);
  useEffect(() => field.current?.focus(), []);
  const save = async () => {
    if (text.value.trim() && (await edit(message, text.value))) onEnd();
  };
  const press = (event: KeyboardEvent) => {
    if (event.key !== "Escape" && !isSending(event)) return;
    event.preventDefault();
    if (event.key === "Escape") onEnd();
    else void save();
  };
  return (
    <form
      class="edit"
      onKeyDown={press}
      onSubmit={(event) => {
        event.preventDefault();
        void save();
      }}
    >
      <textarea
        aria-label="Edit the message"
        dir="auto"
        value={text.value}
        onInput={(event) => (text.value = event.currentTarget.value)}
        ref={field}
      />
      <div class="row">
        <span class="faint">It is answered anew; what came after it is left behind.</span>
        <button type="button" class="quiet" onClick={onEnd}>
          Cancel
        </button>
        <button class="primary" disabled={sending.value || !text.value.trim()}>
          Save
        </button>
      </div>
    </form>
  );
}

function Step({ message, all, isOver }: { message: Message; all: Message[]; isOver: boolean }) {
  const { reasoning, content, editedContent } = message;
  return (
    <article>
      {reasoning && <Reasoning text={reasoning} />}
      <Markdown text={editedContent ?? content} />
      {callsWithResults(message, all).map(({ call, result }) => (
        <Call
          key={call.toolCallId}
          name={call.name}
          input={JSON.stringify(call.arguments, null, 2)}
          state={result ? (result.outcome ?? (result.isError ? "error" : "ok")) : isOver ? "unknown" : "running"}
          output={result?.content}
        />
      ))}
    </article>
  );
}

function Unfinished({ held }: { held: Held }) {
  const isSilent = !held.text && !held.reasoning && held.drafts.length === 0;
  return (
    <article>
      {held.reasoning && <Reasoning text={held.reasoning} />}
      <Markdown text={held.text} />
      {held.drafts.map(({ toolCallId, name, json }) => (
        <Call key={toolCallId} name={name} input={json} state="running" />
      ))}
      {isSilent && !held.end && <p class="working">Working</p>}
    </article>
  );
}

function Reasoning({ text }: { text: string }) {
  return (
    <details class="folded">
      <summary>Reasoning</summary>
      <Markdown text={text} />
    </details>
  );
}

const STATES = { running: "running", ok: "done", error: "failed", cancelled: "cancelled", unknown: "outcome unknown" };

interface CallProps {
  name: string;
  input: string;
  state: keyof typeof STATES;
  output?: string | undefined;
}

function Call({ name, input, state, output }: CallProps) {
  return (
    <details class="folded">
      <summary>
        Tool <code>{name}</code> <span class={`state ${state}`}>{STATES[state]}</span>
      </summary>
      <pre tabIndex={0}>{input}</pre>
      {output !== undefined && <pre tabIndex={0}>{output}</pre>}
    </details>
  );
}

const REASONS: Record<string, string> = {
  length: "The answer was cut: it reached its longest length.",
  content_filter: "The provider's filter ended the answer.",
  step_limit: "The run ended: it reached its last step.",
};

type EndOfTurn = { note?: string | undefined; error?: RunError | null | undefined };

function endOfStream({ end }: Held): EndOfTurn {
  if (end?.type === "error") return { error: end.error };
  return { note: end?.type === "cancelled" ? "Stopped." : REASONS[end?.finishReason ?? ""] };
}

function endOfRun(run: Run | null | undefined): EndOfTurn {
  if (!run) return {};
  return { error: run.error, note: run.state === "cancelled" ? "Stopped." : REASONS[run.finishReason ?? ""] };
}

function Ending({ end: { note, error } }: { end: EndOfTurn }) {
  if (error) return <p class="error">{error.message}</p>;
  return note ? <p class="faint">{note}</p> : null;
}

interface FootProps {
  question: Message;
  said: Message[];
  /** What a run that was stopped or failed had said of its last step. */
  rest: string | undefined;
  canRegenerate: boolean;
}

function Foot({ question, said, rest, canRegenerate }: FootProps) {
  const usages = said.flatMap(({ usage }) => usage ?? []);
  const texts = said.map(({ editedContent, content }) => editedContent ?? content);
  const text = [...texts, rest ?? ""].filter(Boolean).join("\n\n");
  return (
    <footer class="foot">
      {text.trim() && <CopyButton text={text} />}
      {canRegenerate && (
        <button type="button" class="quiet" disabled={running.value || sending.value} onClick={() => void regenerate(question)}>
          Answer again
        </button>
      )}
      <span class="faint usage">
        {usages.length > 0 && <Tokens usages={usages} />}
        {said.at(-1)?.model}
      </span>
    </footer>
  );
}

function Tokens({ usages }: { usages: Usage[] }) {
  const sum = (of: keyof Usage) => usages.reduce((total, usage) => total + usage[of], 0);
  const details = `${sum("cachedInputTokens")} of the input were cached, ${sum("reasoningTokens")} of the output were reasoning`;
  return (
    <span title={details}>
      {sum("inputTokens").toLocaleString()} tokens in, {sum("outputTokens").toLocaleString()} out{" · "}
    </span>
  );
}
