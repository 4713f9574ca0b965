import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { SignIn } from "../components/SignIn";
import { ThemeButton } from "../components/ThemeButton";
import { askForDevelopmentToken, leave, myName, signIn, token } from "../session";
import { FailedRuns } from "./FailedRuns";
import { follow, isRefused, points, summary, trouble, use } from "./figures";
import { type Line, Plot } from "./Plot";
import { TableSection } from "./Table";
import type { Latency } from "./types";
import { count, milliseconds, rate, seconds } from "./words";
import { Workers } from "./Workers";

export function Operations() {
  return token.value ? <SignedIn key={token.value} /> : <SignIn />;
}

function SignedIn() {
  useEffect(follow, []);
  return isRefused.value ? <NoSuperuser /> : <Dashboard />;
}

/** The token is good, but not for this page. */
function NoSuperuser() {
  const wrong = useSignal("");
  const submit = (event: SubmitEvent) => {
    event.preventDefault();
    const given = new FormData(event.currentTarget as HTMLFormElement).get("token");
    if (!signIn(`${given}`)) wrong.value = "This is no token: it has three parts, with dots between them.";
  };
  const askHere = async () => {
    if (await askForDevelopmentToken()) location.reload();
    else wrong.value = "This server gives no token by itself.";
  };
  return (
    <main class="sign-in">
      <h1>Operations</h1>
      <p role="alert">
        {myName.value} is signed in, but no superuser: this page is for tokens with the claim{" "}
        <code>is_superuser: true</code>.
      </p>
      <form onSubmit={submit}>
        <label for="token">A superuser's token</label>
        <input id="token" name="token" type="password" autocomplete="off" required aria-describedby="token-help" />
        <button class="primary">Sign in</button>
        <button type="button" onClick={() => void askHere()}>
          Sign in on this machine
        </button>
        <p id="token-help" class="faint" role="status">
          {wrong.value || "It takes the other one's place in this browser."}
        </p>
        <a href="/">To the conversations</a>
      </form>
    </main>
  );
}

function Dashboard() {
  return (
    <div class="operations">
      <header class="header">
        <h1 class="title">Operations</h1>
        <a class="button quiet" href="/">
          Conversations
        </a>
        <ThemeButton />
        <button type="button" class="quiet" onClick={leave}>
          Sign out
        </button>
      </header>
      <main>
        <p class={trouble.value ? "status trouble" : "status"} role="status">
          {trouble.value || (summary.value ? "Live" : "Reading…")}
        </p>
        <Tiles />
        <Plots />
        <Workers />
        <Queues />
        <Ended />
        <FailedRuns />
        <Workspaces />
      </main>
    </div>
  );
}

function Tiles() {
  const now = summary.value;
  const last = points.value.at(-1);
  if (!now || !last?.now) return null;
  const { queued, running, waiting, oldestS } = last.now;
  const working = now.workers.filter(({ state }) => state === "working").length;
  return (
    <dl class="tiles">
      <Tile name="Queued" value={count(queued)} more={oldestS ? `oldest due for ${seconds(oldestS)}` : "none due"} />
      <Tile name="Running" value={count(running)} more={`${count(waiting)} waiting`} />
      <Tile name="Workers" value={count(working)} more={others(now.workers.length - working)} />
      <Tile name="Pickup p95" value={milliseconds(now.pickup.p95Ms)} more={spread(now.pickup)} />
      <Tile name="First token p95" value={milliseconds(now.firstToken.p95Ms)} more={spread(now.firstToken)} />
      <Tile name="Tokens/s" value={last.tokensPerS === null ? "–" : rate(last.tokensPerS)} more="as seen here in the last minute" />
    </dl>
  );
}

const others = (number: number) => (number ? `${number} draining or silent` : "all at work");
const spread = ({ p50Ms, p99Ms, samples }: Latency) =>
  samples ? `p50 ${milliseconds(p50Ms)}, p99 ${milliseconds(p99Ms)}` : "none in 5 minutes";

function Tile({ name, value, more }: { name: string; value: string; more: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>
        <b>{value}</b> <span class="faint">{more}</span>
      </dd>
    </div>
  );
}

const LOAD: Line[] = [
  { name: "queued", of: ({ now }) => now?.queued },
  { name: "running", of: ({ now }) => now?.running },
  { name: "waiting", of: ({ now }) => now?.waiting },
];
const PICKUP: Line[] = [
  { name: "p50", of: ({ minute }) => minute.pickupP50Ms },
  { name: "p95", of: ({ minute }) => minute.pickupP95Ms },
];
const FIRST_TOKEN: Line[] = [
  { name: "p50", of: ({ minute }) => minute.firstTokenP50Ms },
  { name: "p95", of: ({ minute }) => minute.firstTokenP95Ms },
];
const TOKENS: Line[] = [{ name: "tokens/s", of: ({ tokensPerS }) => tokensPerS }];
const ENDS: Line[] = [
  { name: "completed", of: ({ minute }) => minute.completed },
  { name: "failed", of: ({ minute }) => minute.failed },
  { name: "cancelled", of: ({ minute }) => minute.cancelled },
];

function Plots() {
  const seen = points.value;
  return (
    <div class="plots">
      <Plot title="Runs, since this page was opened" points={seen} lines={LOAD} say={count} />
      <Plot title="Runs ended per minute" points={seen} lines={ENDS} say={count} />
      <Plot title="Pickup" points={seen} lines={PICKUP} say={milliseconds} />
      <Plot title="First token" points={seen} lines={FIRST_TOKEN} say={milliseconds} />
      <Plot title="Output tokens per second" points={seen} lines={TOKENS} say={rate} />
    </div>
  );
}

function Queues() {
  return (
    <TableSection
      label="Runs by priority"
      rows={summary.value?.queues ?? []}
      keyOf={({ priority }) => priority}
      nothing="…"
      columns={[
        { label: "Priority", of: ({ priority }) => priority },
        { label: "Queued", of: ({ queued }) => count(queued), isNumber: true },
        { label: "Due", of: ({ due }) => count(due), isNumber: true },
        { label: "Held", of: ({ held }) => count(held), isNumber: true },
        { label: "Oldest due for", of: (one) => (one.oldestDueS === null ? "–" : seconds(one.oldestDueS)), isNumber: true },
        { label: "Running", of: ({ running }) => count(running), isNumber: true },
        { label: "Waiting", of: ({ waiting }) => count(waiting), isNumber: true },
      ]}
    />
  );
}

function Ended() {
  return (
    <TableSection
      label="Ended in the last hour"
      rows={summary.value?.ended ?? []}
      keyOf={({ state, code }) => `${state} ${code}`}
      nothing="No run has ended."
      columns={[
        { label: "State", of: ({ state }) => <span class={`badge is-${state}`}>{state}</span> },
        { label: "Code", of: ({ code }) => code ?? "–" },
        { label: "Runs", of: ({ runs }) => runs.toLocaleString("en"), isNumber: true },
      ]}
    />
  );
}

function Workspaces() {
  return (
    <TableSection
      label="Workspaces by use"
      rows={use.value ?? []}
      keyOf={({ workspaceId }) => workspaceId}
      nothing={use.value ? "Nothing was used this month." : "…"}
      columns={[
        { label: "Workspace", of: ({ workspaceId }) => <code>{workspaceId}</code> },
        { label: "Runs today", of: (one) => count(one.runsToday), isNumber: true },
        { label: "Input tokens today", of: (one) => count(one.inputTokensToday), isNumber: true },
        { label: "Output tokens today", of: (one) => count(one.outputTokensToday), isNumber: true },
        { label: "Runs this month", of: (one) => count(one.runsThisMonth), isNumber: true },
        { label: "Input tokens this month", of: (one) => count(one.inputTokensThisMonth), isNumber: true },
        { label: "Output tokens this month", of: (one) => count(one.outputTokensThisMonth), isNumber: true },
      ]}
    />
  );
}
