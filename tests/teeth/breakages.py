"""The guards of the promise that nothing is lost, how each is broken, and the tests of which one must notice."""

from tests.teeth.breakage import Breakage, Change
from tests.teeth.documents import DOCUMENT_BREAKAGES
from tests.teeth.housekeeping import HOUSEKEEPING_BREAKAGES

_APPEND = "tests/integration/test_eventlog_append.py"
_SINK = "tests/integration/test_eventlog_sink.py"
_LOG_MODEL = "tests/integration/test_event_log_model.py"
_RUN_MODEL = "tests/integration/test_run_model.py"
_JOURNAL = "tests/integration/test_journal.py"
_EXECUTION = "tests/integration/test_execution.py"
_SCHEDULE = "tests/integration/test_run_schedule.py"
_FAIRNESS = "tests/integration/test_fair_claims.py"
_CAP = "tests/integration/test_running_runs_cap.py"
_SETTLE = "tests/integration/test_settle.py"
_RECOVERY = "tests/integration/test_recovery.py"
_KEEPER = "tests/integration/test_lease_keeper.py"
_FOLLOW = "tests/integration/test_relay_follow.py"
_OUTAGES = "tests/integration/test_relay_outages.py"
_HUB = "tests/integration/test_relay_hub.py"
_IDEMPOTENCY = "tests/integration/test_api_idempotency.py"

_SCRIPT = "common/eventlog/script.py"
_TRANSITIONS = "common/store/run_transitions.py"
_STEPS = "common/store/steps.py"
_SCHEDULER = "migrations/0002_scheduler_functions.sql"
_SWEEP = "migrations/0004_last_chances.sql"
_CLAIMS = "migrations/0012_running_runs.sql"


def _seams(*ids: str) -> tuple[str, ...]:
    return tuple(f"tests/chaos/test_seams.py::test_seam[{one}]" for one in ids)


BREAKAGES = (
    *DOCUMENT_BREAKAGES,
    *HOUSEKEEPING_BREAKAGES,
    Breakage(
        "append-fence",
        "the append script refuses an older attempt than the head's",
        "the comparison is gone",
        (Change(_SCRIPT, "if head_attempt > attempt then return {FENCED} end\n", ""),),
        (_APPEND, _LOG_MODEL),
    ),
    Breakage(
        "append-continues",
        "the append script refuses a batch that leaves a hole",
        "the comparison is gone",
        (Change(_SCRIPT, "if head_attempt == attempt and head_n ~= first - 1 then return {LOST} end\n", ""),),
        (_APPEND, _LOG_MODEL),
    ),
    Breakage(
        "append-nomkstream",
        "only `started` makes a stream",
        "XADD without NOMKSTREAM",
        (Change(_SCRIPT, "'NOMKSTREAM', ", ""),),
        (_APPEND, _LOG_MODEL),
    ),
    Breakage(
        "append-known",
        "an append whose reply was lost is recognised when it is repeated",
        "the comparison is gone",
        (Change(_SCRIPT, "if head_attempt == attempt and head_n >= last then return {OK} end\n", ""),),
        (*_seams("append.after-raise-charge"), _LOG_MODEL, _APPEND),
    ),
    Breakage(
        "seal",
        "a sealed batch is sent again unchanged",
        "what came meanwhile is put into the batch that is sent again",
        (
            Change(
                "worker/run/sink.py",
                '                await failpoint("append.retry")\n',
                '                await failpoint("append.retry")\n'
                "                self._last = sealed.batch.last_n\n"
                "                if self._pending:\n"
                "                    more = self._number(take_batch(self._pending)).batch.events\n"
                "                    events = (*sealed.batch.events, *more)\n"
                "                    sealed = sealed._replace(batch=sealed.batch._replace(events=events))\n"
                "                    self._sealed[0] = sealed\n",
            ),
        ),
        (*_seams(*(f"append.after-raise-charge-{on}" for on in (2, 3, 4))), _LOG_MODEL),
    ),
    Breakage(
        "sink-shows-again",
        "a new attempt of the same owner shows what the unfinished step has said",
        "it is not shown",
        (Change("worker/run/sink.py", "        self._pending.extend(self._unfinished.pieces())\n", ""),),
        (_SINK, _LOG_MODEL),
    ),
    Breakage(
        "fence",
        "a commit of an owner checks its attempt",
        "commits take the run in any attempt",
        (
            Change(
                _TRANSITIONS,
                "    where id = $1 and attempt = $2 and state = 'running'\n    returning workspace_id",
                "    where id = $1 and $2::bigint > 0 and state = 'running'\n    returning workspace_id",
            ),
            Change(_STEPS, "where id = $1 and attempt = $2 and", "where id = $1 and $2::bigint > 0 and"),
        ),
        (*_seams("step.after_commit-block-amid", "result.after_commit-block-amid"), _JOURNAL, _RUN_MODEL),
    ),
    Breakage(
        "claim-lock",
        "of two claims at the same moment one gets the run",
        "the row is not locked",
        (Change(_CLAIMS, "            for no key update skip locked;\n", "            ;\n"),),
        (f"{_SCHEDULE}::test_claims_at_the_same_moment_take_different_runs", _SCHEDULE, _FAIRNESS),
    ),
    Breakage(
        "claim-skip-locked",
        "a run that somebody holds delays no claim of others",
        "the claim waits for it",
        (Change(_CLAIMS, "            for no key update skip locked;\n", "            for no key update;\n"),),
        (_SCHEDULE,),
    ),
    Breakage(
        "claim-state",
        "only a queued run is claimed",
        "a running one is claimed as well",
        (
            Change(
                _CLAIMS,
                "r.state = 'queued' and r.cancel_requested_at is null and r.priority = any (p_priorities)\n",
                "r.state in ('queued', 'running') and r.priority = any (p_priorities)\n",
            ),
            Change(
                _CLAIMS,
                "            select r.workspace_id, r.state = 'queued' and r.cancel_requested_at is null into",
                "            select r.workspace_id, r.state in ('queued', 'running') into",
            ),
        ),
        (_SCHEDULE,),
    ),
    Breakage(
        "claim-deeper",
        "a claim that finds the first runs taken looks behind them",
        "it makes do with what it got",
        (Change(_CLAIMS, "    for round in 1..3 loop\n", "    for round in 1..1 loop\n"),),
        (_FAIRNESS,),
    ),
    Breakage(
        "claim-turns",
        "a workspace that has more running comes later",
        "runs are claimed in the order of their age",
        (
            Change(
                _CLAIMS,
                "             c.running + row_number() over (partition by c.workspace_id order by c.class,"
                " c.available_at, c.id),\n",
                "",
            ),
        ),
        (_FAIRNESS,),
    ),
    Breakage(
        "claim-patience",
        "background runs that have waited for a minute get a tenth of the places",
        "they wait until no interactive run is due",
        (Change(_CLAIMS, "c.available_at, c.id) then 0 else", "c.available_at, c.id) then c.priority else"),),
        (_FAIRNESS,),
    ),
    Breakage(
        "claim-cap",
        "two claims at once do not exceed the cap of a workspace",
        "neither waits for the other",
        (
            Change(_CLAIMS, "        perform pg_advisory_xact_lock(lock);\n", "        null;\n"),
            Change(_CLAIMS, "    elsif not pg_try_advisory_xact_lock(lock) then\n", "    elsif false then\n"),
        ),
        (_CAP,),
    ),
    Breakage(
        "cap-bell",
        "an end in a workspace with a cap wakes whoever has room for the next run",
        "it is found when somebody looks",
        (
            Change(
                "worker/job.py",
                "        await ring_for_next(self._resources, lease.workspace_id)\n",
                "",
            ),
        ),
        (_CAP,),
    ),
    Breakage(
        "bell-priority",
        "a bell is left to the workers that serve its run",
        "all bells ring in one queue",
        (
            Change(
                "common/queue.py",
                "        queue = QUEUES[priority]\n",
                "        queue = QUEUES[Priority.INTERACTIVE]\n",
            ),
        ),
        ("tests/integration/test_bell_worker.py",),
    ),
    Breakage(
        "heartbeat-claim",
        "a heartbeat renews the claim that it names, and no other",
        "it renews whatever this owner runs",
        (
            Change(
                _SCHEDULER,
                "            where r.claimed_attempt = u.claim and r.state = 'running' and r.lease_owner = p_owner\n"
                "            for no key update of r) l;",
                "            where r.state = 'running' for no key update of r) l;",
            ),
            Change(
                _SCHEDULER,
                "            where r.claimed_attempt = u.claim and r.state = 'running' and r.lease_owner = p_owner\n"
                "            for no key update of r skip locked) l;",
                "            where r.state = 'running' for no key update of r skip locked) l;",
            ),
        ),
        (_SCHEDULE, _KEEPER),
    ),
    Breakage(
        "raise-claim",
        "an attempt is raised under the claim that it belongs to",
        "the claim is not looked at",
        (Change(_TRANSITIONS, " and claimed_attempt = $3 and state = 'running'", " and $3::bigint > 0"),),
        (_SCHEDULE, _JOURNAL),
    ),
    Breakage(
        "local-deadline",
        "past its local deadline a run neither tells nor begins an effect",
        "the timer does nothing",
        (Change("worker/run/lease.py", "        self.active.clear()\n        self.on_suspend()\n", ""),),
        (*_seams("call.after_commit-block-charge"), "tests/unit/test_lease.py"),
    ),
    Breakage(
        "watchdog",
        "a process whose event loop is stuck past a lease ends itself",
        "the watchdog only watches",
        (Change("worker/run/lease.py", "                os._exit(_BLOCKED_EXIT)\n", ""),),
        ("tests/e2e/test_stuck_worker.py",),
    ),
    Breakage(
        "at-most-once",
        "a call that must not happen twice is not run again",
        "it is run again",
        (
            Change(
                "worker/run/tool_calls.py",
                'return call.state == "started" and call.effect is Effect.AT_MOST_ONCE',
                'return call.state == "started" and call.effect is Effect.TRANSACTIONAL',
            ),
        ),
        (*_seams("tool.after_effect-exit-charge", "tool.before_effect-exit-charge"), _EXECUTION, _RUN_MODEL),
    ),
    Breakage(
        "last-chance",
        "runs that one more crash would end keep their tools apart",
        "their tools run side by side",
        (Change("worker/run/tool_calls.py", "if suspect else nullcontext()", "if False else nullcontext()"),),
        ("tests/unit/test_last_chances.py", "tests/chaos/test_tool_kills_worker.py"),
    ),
    Breakage(
        "started-first",
        "a call is noted as started before its effect",
        "it is noted afterwards",
        (
            Change("worker/run/tool_calls.py", "        await self._ledger.start_call(call)\n", ""),
            Change(
                "worker/run/tool_calls.py",
                '        await failpoint("tool.after_effect")\n        await self._ledger.finish_call(',
                '        await failpoint("tool.after_effect")\n        await self._ledger.start_call(call)\n'
                "        await self._ledger.finish_call(",
            ),
        ),
        (*_seams("tool.after_effect-exit-charge"), _RUN_MODEL),
    ),
    Breakage(
        "same-key",
        "an idempotent call has the same key each time",
        "the key contains the attempt",
        (
            Change(
                "worker/run/tool_calls.py",
                "idempotency_key(self._spec.id, call.id)",
                'idempotency_key(self._spec.id, f"{call.id}{self._attempt()}")',
            ),
        ),
        (*_seams("tool.after_effect-exit-store"), _EXECUTION),
    ),
    Breakage(
        "step-reread",
        "a step whose commit got no reply is recognised when it is repeated",
        "it is not looked for",
        (Change(_STEPS, " and step_count < $4\n", "\n"),),
        (*_seams("step.after_commit-raise-charge"), _JOURNAL, _RUN_MODEL),
    ),
    Breakage(
        "result-reread",
        "a result whose commit got no reply is recognised when it is repeated",
        "it is not looked for",
        (
            Change(
                "worker/run/journal.py",
                "            if not await update_call_finished(connection, call.id, outcome):"
                "  # the commit's reply was lost\n",
                "            if not await update_call_finished(connection, call.id, outcome) and started is None:\n",
            ),
        ),
        (*_seams("result.after_commit-raise-charge"), _JOURNAL, _RUN_MODEL),
    ),
    Breakage(
        "shielded-commit",
        "a cancel never parts a commit from what is told of it",
        "commits are not shielded",
        (
            Change(
                "worker/run/journal.py",
                "        return await finish_even_if_cancelled(commit())\n",
                "        return await commit()\n",
            ),
        ),
        (_JOURNAL, _EXECUTION, _RUN_MODEL),
    ),
    Breakage(
        "crashed-calls",
        "a model call that a crash cut off is closed and counted",
        "it stays open",
        (
            Change(
                "common/store/model_calls.py",
                "    where run_id = $1 and state = 'started'\n",
                "    where run_id = $1 and state = 'started' and false\n",
            ),
        ),
        (*_seams("step.before_commit-exit-charge"), _EXECUTION, _RUN_MODEL),
    ),
    Breakage(
        "settle-terminal",
        "a run that has ended is not ended again",
        "neither `settle` nor the trigger looks",
        (
            Change(
                "common/settle.py", "    if run.terminal is not None:\n", "    if run.terminal is None and False:\n"
            ),
            Change("common/settle.py", "    if not _may_end(by, run, attempt):\n", "    if by is None:\n"),
            Change(
                "migrations/0001_agents_conversations_runs.sql",
                "    for each row when (old.finished_at is not null)\n",
                "    for each row when (false)\n",
            ),
        ),
        (_SETTLE, _RUN_MODEL),
    ),
    Breakage(
        "terminal-trigger",
        "the row of a run that has ended is immutable",
        "the trigger never fires",
        (
            Change(
                "migrations/0001_agents_conversations_runs.sql",
                "    for each row when (old.finished_at is not null)\n",
                "    for each row when (false)\n",
            ),
        ),
        (_SETTLE,),
    ),
    Breakage(
        "promotion",
        "the end of a run, or else the sweep, lets the next one begin",
        "both forget it",
        (
            Change(
                "common/settle.py",
                "await promote_waiting(connection, run.conversation_id) if promote and others_wait else None",
                "None",
            ),
            Change("worker/recovery.py", "            await promote_waiting(connection, conversation_id)\n", ""),
        ),
        (*_seams("bell.before-exit-next_run"), _SETTLE, _RECOVERY),
    ),
    Breakage(
        "promotion-at-the-end",
        "the end of a run lets the next one begin at once",
        "it is left to the sweep",
        (
            Change(
                "common/settle.py",
                "await promote_waiting(connection, run.conversation_id) if promote and others_wait else None",
                "None",
            ),
        ),
        (_SETTLE,),
    ),
    Breakage(
        "promotion-by-the-sweep",
        "the sweep makes up for a missed promotion",
        "it does not",
        (Change("worker/recovery.py", "            await promote_waiting(connection, conversation_id)\n", ""),),
        (*_seams("promote.before_commit-exit-not_promoted"), _RECOVERY),
    ),
    Breakage(
        "unrung",
        "due runs are claimed although nobody rings",
        "workers wait for the bell",
        (Change("worker/recovery.py", "            await runs.claim_due()\n", "            await asyncio.sleep(0)\n"),),
        (*_seams("bell.before-exit-post"), _RECOVERY),
    ),
    Breakage(
        "sweep-after-pause",
        "leases are swept once Postgres has answered for a whole lease",
        "they are swept at once",
        (Change(_SWEEP, "    if not answering then\n", "    if false then\n"),),
        (_SCHEDULE, _RECOVERY),
    ),
    Breakage(
        "crash-count",
        "a run that crashes its workers again and again is ended",
        "crashes are not counted",
        (
            Change(_SWEEP, "            crashes_total = r.crashes_total + 1,\n", ""),
            Change(
                _SWEEP,
                "            crashes_since_progress = r.crashes_since_progress + (r.open_tool_calls > 0)::integer,\n",
                "",
            ),
        ),
        (_SCHEDULE,),
    ),
    Breakage(
        "idempotency-key",
        "the same request with the same key is carried out once",
        "the key is not looked at",
        (Change("api/commands/idempotency.py", "        if self.key is None:\n", "        if True:\n"),),
        (*_seams("request.after_commit-exit-post"), _IDEMPOTENCY),
    ),
    Breakage(
        "cancel-unsignalled",
        "a cancel whose signal was lost is found by the heartbeat",
        "the heartbeat does not look",
        (
            Change(
                "worker/run/lease.py",
                "                if renewed[lease.run_id]:\n                    lease.on_cancel()\n",
                "",
            ),
        ),
        (*_seams("signal.before-exit-cancel"), _KEEPER),
    ),
    Breakage(
        "relay-reread",
        "after a reconnect to Redis every client reads the log again",
        "what was published meanwhile is not looked for",
        (
            Change(
                "api/relay/hub.py",
                "            feed.confirmed = True\n"
                "            for client in feed.clients:\n"
                "                client.fall_behind()\n",
                "            feed.confirmed = True\n"
                "            for client in feed.clients:\n"
                "                client.retry()\n",
            ),
        ),
        (_OUTAGES,),
    ),
    Breakage(
        "relay-hands-on-holes",
        "only what continues a run is handed on without a look at the log",
        "whatever is published is handed on",
        (Change("api/relay/follow.py", " or self._position != (attempt, n - 1) or n == 1:", " or n == 1:"),),
        (_FOLLOW,),
    ),
    Breakage(
        "relay-holes",
        "a hole in what is published is filled from the log",
        "what comes after it is told",
        (
            Change(
                "api/relay/follow.py",
                "and first.n <= position.n + 1:",
                "and first.n > 0:",
            ),
        ),
        (_FOLLOW,),
    ),
    Breakage(
        "relay-poll",
        "an end that nobody told the log is found in Postgres",
        "the relay does not ask",
        (
            Change(
                "api/relay/hub.py", "                await self._poll()\n", "                await asyncio.sleep(0)\n"
            ),
        ),
        (*_seams("end.before_append-exit-charge"), _FOLLOW),
    ),
)
