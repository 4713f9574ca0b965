import { useSignal } from "@preact/signals";
import { useRef } from "preact/hooks";
import { ApiError } from "../api";
import { chooseCode, code, failed, moreFailed, readMoreFailed, requeue } from "./figures";
import { Table } from "./Table";
import type { FailedRun } from "./types";
import { moment } from "./words";

const CODES = ["crash_loop", "provider_error", "provider_rejected", "deadline_exceeded", "budget_exceeded", "internal"];

export function FailedRuns() {
  const dialog = useRef<HTMLDialogElement>(null);
  const chosen = useSignal<FailedRun | null>(null);
  const outcome = useSignal("");
  const ask = (run: FailedRun) => {
    chosen.value = run;
    dialog.current?.showModal();
  };
  const start = async () => {
    const run = chosen.value!;
    try {
      const { newRunId } = await requeue(run.runId);
      outcome.value = `Run ${run.runId} was started again as ${newRunId}.`;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      outcome.value = `Run ${run.runId} was not started again. ${error.message}`;
    }
  };
  return (
    <section aria-labelledby="failed-runs">
      <div class="head">
        <h2 id="failed-runs">Failed runs</h2>
        <select
          aria-label="Code"
          value={code.value}
          onChange={(event) => void chooseCode((event.currentTarget as HTMLSelectElement).value)}
        >
          <option value="">All codes</option>
          {CODES.map((name) => (
            <option key={name}>{name}</option>
          ))}
        </select>
      </div>
      <p class={outcome.value ? "outcome" : ""} role="status">
        {outcome.value}
      </p>
      <Table
        label="Failed runs"
        rows={failed.value ?? []}
        keyOf={({ runId }) => runId}
        nothing={failed.value ? "No run has failed." : "…"}
        columns={[
          { label: "Ended", of: ({ finishedAt }) => <time dateTime={finishedAt}>{moment(finishedAt)}</time> },
          { label: "Code", of: (run) => <span class="badge is-failed">{run.code}</span> },
          { label: "Run", of: ({ runId }) => <code>{runId}</code> },
          { label: "Workspace", of: ({ workspaceId }) => <code>{workspaceId}</code> },
          { label: "Agent", of: ({ agentId }) => (agentId ? <code>{agentId}</code> : "–") },
          { label: "Attempts", of: ({ attempts }) => attempts, isNumber: true },
          { label: "Crashes", of: ({ crashes }) => crashes, isNumber: true },
          { label: "Again", of: (run) => <Again run={run} ask={ask} /> },
        ]}
      />
      {moreFailed.value && (
        <button type="button" class="quiet" onClick={() => void readMoreFailed()}>
          Show more
        </button>
      )}
      <dialog ref={dialog} aria-labelledby="requeue-title">
        <h2 id="requeue-title">Start this run again?</h2>
        <p>
          <code>{chosen.value?.runId}</code>
        </p>
        <p class="faint">
          Its turn is answered anew, for its user and with the same model. What it had said is superseded, and tools that
          it has called may be called again.
        </p>
        <form method="dialog">
          <button class="quiet">Leave it</button>
          <button class="primary" onClick={() => void start()}>
            Start again
          </button>
        </form>
      </dialog>
    </section>
  );
}

function Again({ run, ask }: { run: FailedRun; ask: (run: FailedRun) => void }) {
  if (run.requeue) {
    const { newRunId, requeuedBy, requeuedAt } = run.requeue;
    return (
      <span class="faint" title={`As ${newRunId}, ${moment(requeuedAt)}`}>
        by {requeuedBy}
      </span>
    );
  }
  if (!run.requeueable) return <WhyNot run={run} />;
  return (
    <button type="button" aria-label={`Requeue ${run.runId}`} onClick={() => ask(run)}>
      Requeue
    </button>
  );
}

function WhyNot({ run }: { run: FailedRun }) {
  if (run.conversationDeleted) return <span class="faint">conversation deleted</span>;
  if (run.outdated) return <span class="faint">went on</span>;
  return (
    <span class="faint" title="What it was made of is kept no longer. Its user can have the message answered anew.">
      details removed
    </span>
  );
}
