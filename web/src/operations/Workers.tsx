import { rates, summary } from "./figures";
import { TableSection } from "./Table";
import type { Worker } from "./types";
import { count, moment, rate, seconds } from "./words";

export function Workers() {
  const { workers = [], at = "" } = summary.value ?? {};
  const now = Date.parse(at);
  return (
    <TableSection
      label="Workers"
      rows={workers}
      keyOf={({ owner }) => owner}
      nothing="No worker has been heard of in the last ten minutes."
      columns={[
        { label: "Worker", of: ({ owner }) => <code>{owner}</code> },
        { label: "State", of: ({ state }) => <span class={`badge is-${state}`}>{state}</span> },
        { label: "Runs", of: (worker) => <Places worker={worker} />, isNumber: true },
        { label: "Priorities", of: ({ priorities }) => priorities.join(", ") },
        { label: "Runs/min", of: ({ owner }) => shown(rates.value.get(owner)?.runs, 60), isNumber: true },
        { label: "Tokens/s", of: ({ owner }) => shown(rates.value.get(owner)?.tokens, 1), isNumber: true },
        { label: "Ended", of: ({ runsEnded }) => count(runsEnded), isNumber: true },
        { label: "Version", of: ({ version }) => version },
        { label: "Up", of: (worker) => <Since text={worker.startedAt} now={now} />, isNumber: true },
        { label: "Heard of", of: (worker) => <Since text={worker.seenAt} now={now} ago />, isNumber: true },
      ]}
    />
  );
}

function Places({ worker: { running, places } }: { worker: Worker }) {
  return (
    <span>
      {running} of {places} <meter aria-hidden="true" max={places} value={running} />
    </span>
  );
}

function Since({ text, now, ago }: { text: string; now: number; ago?: boolean }) {
  const passed = seconds(Math.max(0, Math.round((now - Date.parse(text)) / 1_000)));
  return <time dateTime={text} title={moment(text)}>{ago ? `${passed} ago` : passed}</time>;
}

const shown = (perSecond: number | undefined, times: number) =>
  perSecond === undefined ? "–" : rate(perSecond * times);
