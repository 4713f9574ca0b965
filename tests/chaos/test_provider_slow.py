"""A provider that is slow, silent or out of reach: every wait has its limit, every request its figures."""

import asyncio
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import msgspec
import pytest

from tests.support.audit import audit_watchers
from tests.support.chaos import Chaos
from tests.support.eventually import eventually
from tests.support.model_script import Call, Reply
from tests.support.system import Client, System, running_system
from tests.support.watcher import Watcher

CONNECT_S, FIRST_TOKEN_S, SILENCE_S, DEADLINE_S = 2.0, 3.0, 2.0, 5.0
LIMITS = {
    "PROVIDER_CONNECT_S": str(CONNECT_S),
    "PROVIDER_FIRST_TOKEN_S": str(FIRST_TOKEN_S),
    "PROVIDER_SILENCE_S": str(SILENCE_S),
    "PROVIDER_RETRIES": "1",
}
BACKOFF_S = 0.25
"""The shortest pause before the one retry."""
SLACK_S = 5.0
"""What a busy machine may add to a limit."""

TIMEOUT, ANSWERED = ("failed", "timeout"), ("completed", None)
ENDLESS = Reply(text="word " * 500, pause_s=0.05)
COMMENTS = Reply(raw=b": still at it\n\n" * 200, split=15, pause_s=0.1)


class Case(NamedTuple):
    """What a provider does, and what must come of it: the end, the meter's rows, how often previews are discarded.

    `least_s` is how long the limits make it wait; it may not take much longer. The error's message has `says` in it.
    """

    name: str
    provider: str
    replies: Sequence[Reply]
    end: str
    metered: Sequence[tuple[str, str | None]]
    least_s: float
    discarded: int = 0
    says: str = ""

    @property
    def model(self) -> str:
        """A model of its own, so that no other case takes its answers."""
        return f"{self.provider} {self.name}"


def _cases() -> Iterator[Case]:
    for provider in ("no answer to SYN", "no answer to TLS"):
        yield Case("connect", provider.replace(" ", "_").lower(), [], "provider_error", [TIMEOUT] * 2, 2 * CONNECT_S)
    for provider in ("anthropic", "openai", "openrouter"):
        whole = Reply(text="here it is")
        yield Case(
            "first token",
            provider,
            [Reply(hang_after=0), whole],
            "done",
            [TIMEOUT, ANSWERED],
            FIRST_TOKEN_S + BACKOFF_S,
        )
        broken = Reply(text="one two three four", hang_after=5)
        yield Case("silence", provider, [broken, whole], "done", [TIMEOUT, ANSWERED], SILENCE_S + BACKOFF_S, 1)
        yield Case("steady", provider, [Reply(text="word " * 25, pause_s=0.1)], "done", [ANSWERED], SILENCE_S)
    nothing = f"sent nothing for {FIRST_TOKEN_S:g} s"
    for name, provider, reply in (
        ("never", "anthropic", Reply(hang_after=0)),
        ("comments", "openrouter", COMMENTS),
        ("usage", "anthropic", Reply(hang_after=1)),
    ):
        failed = [TIMEOUT] * 2
        yield Case(name, provider, [reply] * 2, "provider_error", failed, 2 * FIRST_TOKEN_S, says=nothing)
    no_more = f"sent nothing for {SILENCE_S:g} s"
    broken = Reply(reasoning="hm hm", hang_after=4)
    yield Case("silences", "anthropic", [broken] * 2, "provider_error", [TIMEOUT] * 2, 2 * SILENCE_S, 1, says=no_more)


def _cases_of_the_deadline() -> Iterator[Case]:
    end = "deadline_exceeded"
    yield Case("streaming", "anthropic", [ENDLESS], end, [("cancelled", None)], DEADLINE_S)
    yield Case("silent", "openai", [Reply(hang_after=0)], end, [("cancelled", None)], DEADLINE_S)
    asked_to_wait = Reply(status=429, headers={"retry-after": "30"})
    yield Case("pausing", "openai", [asked_to_wait], end, [("failed", "rate_limited")], DEADLINE_S)
    slow_tool = Reply(calls=(Call("pay", {"amount": 1}),))
    yield Case("in a tool", "openrouter", [slow_tool], end, [ANSWERED], DEADLINE_S)
    again = [("failed", "overloaded"), ("cancelled", None)]
    yield Case("retrying", "anthropic", [Reply(text="half", error="overloaded"), ENDLESS], end, again, DEADLINE_S, 1)


async def test_every_wait_has_its_limit(chaos: Chaos) -> None:
    """Connecting, the first token, silence: each wait ends in time, is metered, and what was shown is discarded."""
    with ExitStack() as stack:
        unreachable = stack.enter_context(_full_listener())
        speechless = stack.enter_context(_listener(16))
        endpoints = [
            {"name": "no_answer_to_syn", "baseUrl": f"http://127.0.0.1:{unreachable}/v1"},
            {"name": "no_answer_to_tls", "baseUrl": f"https://127.0.0.1:{speechless}/v1"},
        ]
        configured = {"COMPATIBLE_PROVIDERS": msgspec.json.encode(endpoints).decode()}
        async with running_system() as system:
            client = await system.client(await system.api())
            await system.worker(**LIMITS, **configured)
            await _check(chaos, system, client, list(_cases()))


@pytest.mark.slow
async def test_deadline_counts_running_time_alone(chaos: Chaos) -> None:
    """It ends a run whatever that is at, and counts on after a kill, but not while there is no worker."""
    limits = {"RUN_DEADLINE_S": str(DEADLINE_S), "LEASE_S": "3", "HEARTBEAT_S": "0.7", "SWEEP_S": "0.2"}
    async with running_system() as system:
        client = await system.client(await system.api())
        worker = await system.worker(**limits)
        await _check(chaos, system, client, list(_cases_of_the_deadline()))
        assert [line.split()[0] for line in system.effects_noted()] == ["pay"]
        system.models.script(ENDLESS, ENDLESS, model="m")
        run = await client.start("talk", provider="anthropic", model="m")
        watching = asyncio.create_task(Watcher([client], run).watch(60))
        await eventually(lambda: system.models.open_streams == 1)
        before = time.monotonic()
        await worker.stop(signal.SIGKILL)
        chaos.fault("kill -9 of the only worker")
        queued = await client.start("hello", provider="anthropic", model="later")
        [row] = await system.rows(
            "select extract(epoch from lease_until - claimed_at)::float8 from runs where id = $1::uuid", run["id"]
        )
        used_s = row[0]
        await eventually(lambda: time.monotonic() - before > DEADLINE_S, DEADLINE_S + 1)
        await system.worker(**limits)
        chaos.fault("another worker")
        watcher = await watching
        _, calls = await _rows(system, watcher)
        assert (watcher.end or {})["error"]["code"] == "deadline_exceeded"
        assert [call["state"] for call in calls] == ["crashed", "cancelled"]
        [row] = await system.rows(
            "select attempt, extract(epoch from finished_at - claimed_at)::float8 as last_s from runs"
            " where id = $1::uuid",
            run["id"],
        )
        assert row["attempt"] == 2
        chaos.figure("the first attempt took", used_s, unit="s")
        chaos.figure("the rest was", DEADLINE_S - used_s, unit="s")
        chaos.figure("the second attempt took", row["last_s"], DEADLINE_S, "s")
        assert row["last_s"] >= DEADLINE_S - used_s - 0.1
        after = await Watcher([client], queued).watch(60)
        queued_ms = (await client.run(queued))["timings"]["queuedMs"]
        chaos.figure("queued without a worker", queued_ms / 1000, unit="s")
        assert ((after.end or {})["type"], queued_ms > DEADLINE_S * 1000) == ("done", True)
        assert not await audit_watchers(system, [watcher, after])


async def _check(chaos: Chaos, system: System, client: Client, cases: Sequence[Case]) -> None:
    """Plays all cases at once, and looks at what has come of each."""
    watchers = await asyncio.gather(*(_play(system, client, case) for case in cases))
    problems = await audit_watchers(system, watchers)
    for case, watcher in zip(cases, watchers, strict=True):
        row, calls = await _rows(system, watcher)
        chaos.figure(f"{case.model} took", row["seconds"], case.least_s + SLACK_S, "s")
        problems += [f"{case.model}: {problem}" for problem in _problems(case, watcher, row, calls)]
    assert not problems, "\n".join(problems)
    await eventually(lambda: system.models.open_streams == 0)


async def _play(system: System, client: Client, case: Case) -> Watcher:
    system.models.script(*case.replies, model=case.model)
    run = await client.start("hello", provider=case.provider, model=case.model)
    return await Watcher([client], run).watch(30)


async def _rows(system: System, watcher: Watcher) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The run, with the seconds that it took, and its model calls in order."""
    id = watcher.run["id"]
    [run] = await system.rows(
        "select state, extract(epoch from finished_at - started_at)::float8 as seconds from runs where id = $1::uuid",
        id,
    )
    calls = await system.rows("select * from model_calls where run_id = $1::uuid order by started_at", id)
    return dict(run), [dict(call) for call in calls]


def _problems(case: Case, watcher: Watcher, row: dict[str, Any], calls: list[dict[str, Any]]) -> Iterator[str]:
    end = watcher.end or {}
    code = end.get("error", {}).get("code", end["type"])
    if code != case.end or end.get("error", {}).get("retryable") is False:
        yield f"ended with {end}"
    if case.says not in end.get("error", {}).get("message", ""):
        yield f"does not say that it {case.says}: {end}"
    if row["seconds"] < case.least_s:
        yield f"took {row['seconds']} s, and the limits make it {case.least_s}"
    if [(call["state"], call["error_code"]) for call in calls] != list(case.metered):
        yield f"metered {calls}"
    for call in calls:
        # A request that was left unanswered may have been read; one that was refused, or never arrived, costs nothing.
        free = case.name in ("connect", "pausing")
        if (call["input_tokens"] + call["output_tokens"] == 0) != free:
            yield f"a request that cost {call['input_tokens']} and {call['output_tokens']} tokens: {call['state']}"
        if call["estimated"] != (call["state"] != "completed"):
            yield f"figures of a {call['state']} request marked estimated: {call['estimated']}"
    discarded = [event["reason"] for event in watcher.events if event["type"] == "discarded"]
    if len(discarded) != case.discarded:
        yield f"discarded {discarded}"


@contextmanager
def _listener(backlog: int) -> Iterator[int]:
    """The port of a listener that takes connections as far as the system does it by itself, and says nothing."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(backlog)
        yield listener.getsockname()[1]


@contextmanager
def _full_listener() -> Iterator[int]:
    """The port of a listener whose queue is full: whoever connects to it waits."""
    with _listener(0) as port, ExitStack() as stack:
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", port))
        yield port
