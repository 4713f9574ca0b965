"""A provider cut at every byte of a recorded stream: no truncated step is committed, no half-received call is run."""

import asyncio
import json
import re
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec

from tests.conformance.samples import fold_chunks, read_bytes, read_expected
from tests.support.audit import audit, audit_watchers
from tests.support.chaos import Chaos
from tests.support.model_script import Reply
from tests.support.system import Client, System, running_system
from tests.support.watcher import Watcher

T = TypeVar("T")
Framing = Literal["chunked", "close"]
_BROKEN_OFF: Framing = "chunked"
"""The connection is lost: the body's own framing says that more was to come."""
_AS_IF_WHOLE: Framing = "close"
"""The body ends with the connection, as it does when it is complete."""

RETRIES = 3
"""Cuts that one run meets, one after the other, before its answer comes whole; with one more it fails."""
WORKER = {
    "TOOLS_MODULE": "tests.support.recorded_tools",
    "PROVIDER_RETRIES": str(RETRIES),
    "PROVIDER_RETRY_BUDGET": "1000000",
    "LOG_LEVEL": "warning",
}


class Recording(NamedTuple):
    """A sample, the provider that reads it, and what is in its last frame.

    `done` ends an answer by itself. Where the wire has `enough`, a clean end of the body after it does so, too.
    """

    sample: str
    provider: str
    done: bytes
    enough: bytes | None = None

    @property
    def data(self) -> bytes:
        """What the provider sends."""
        return read_bytes(self.sample)

    def frame_ends(self) -> list[int]:
        """How many bytes it takes for the first frame, for the first two, and so on: with their blank lines."""
        return [blank.end() for blank in re.finditer(rb"\r\n\r\n|\n\n", self.data)]

    def whole_at(self, framing: Framing) -> float:
        """How many bytes make the answer whole; infinitely many when it never is."""
        last = self.enough if self.enough and framing == _AS_IF_WHOLE else self.done
        place = self.data.find(last)
        return float("inf") if place < 0 else next(end for end in self.frame_ends() if end > place)

    def shows_something(self, size: int) -> bool:
        """Whether a client has seen anything after so many bytes."""
        events = fold_chunks(self.sample, [self.data[:size]], clean_end=False)
        return any(name in ("TextDelta", "ReasoningDelta", "ToolCallDelta") for name, _ in events)

    def step(self) -> dict[str, Any]:
        """What must be committed of it."""
        said: defaultdict[str, str] = defaultdict(str)
        calls: dict[int, dict[str, str]] = {}
        for name, fields in read_expected(self.sample):
            if name == "ToolCallDelta":
                call = calls.setdefault(fields["index"], {"name": fields["name"], "arguments": ""})
                call["arguments"] += fields["delta"]
            elif name in ("TextDelta", "ReasoningDelta"):
                said[name] += fields["text"]
        return {
            "content": said["TextDelta"],
            "reasoning": said["ReasoningDelta"] or None,
            "calls": [(call["name"], json.loads(call["arguments"])) for call in calls.values()],
        }


RECORDINGS = [
    Recording("anthropic/thinking_and_parallel_calls", "anthropic", b'{"type":"message_stop"'),
    Recording("responses/reasoning_and_parallel_calls", "openai", b'{"type":"response.completed"'),
    Recording("chat/parallel_calls", "openrouter", b"[DONE]", enough=b'"finish_reason":"'),
    Recording("chat/loose_crlf_without_done", "openrouter", b"[DONE]", enough=b'"finish_reason":"'),
]


class Cut(NamedTuple):
    """The answer ends after so many bytes."""

    at: int
    framing: Framing


class Trial:
    """One run: these cuts, each of which must be seen as one, and at last `end`: a cut that leaves the answer whole.

    Without an `end` the answer comes uncut, unless the run fails before.
    """

    def __init__(self, recording: Recording, number: int, cuts: Sequence[Cut], end: Cut | None) -> None:
        self.recording = recording
        self.model = f"{recording.sample} {number}"
        self.cuts = cuts
        self.end = end
        self.watcher: Watcher | None = None

    def __repr__(self) -> str:
        return f"{self.model}, cut at {[tuple(cut) for cut in self.cuts]}, then {self.end or 'whole'}"

    @property
    def fails(self) -> bool:
        """Whether it is cut too often."""
        return len(self.cuts) > RETRIES

    def replies(self) -> list[Reply]:
        """What the provider answers, before it says something short to the results of the calls."""
        data = self.recording.data
        cut = [Reply(raw=data, cut_at=cut.at, framing=cut.framing) for cut in (*self.cuts, *filter(None, [self.end]))]
        return cut if self.end else [*cut, Reply(raw=data)]

    async def play(self, system: System, client: Client, starting: asyncio.Semaphore) -> None:
        """Starts the run and watches it to its end."""
        system.models.script(*self.replies(), model=self.model)
        async with starting:
            run = await client.start("weather?", provider=self.recording.provider, model=self.model)
        self.watcher = await Watcher([client], run).watch(300)


async def test_cut_answer_is_never_a_step(chaos: Chaos) -> None:
    """Whatever the byte and however the connection ends, what is committed and run is the whole answer, once."""
    trials = [trial for recording in RECORDINGS for trial in _trials(chaos, recording)]
    chaos.random.shuffle(trials)
    async with running_system() as system:
        client = await system.client(await system.api(LOG_LEVEL="warning"))
        await system.worker(**WORKER)
        began = time.monotonic()
        for batch in _batches(trials, 300):
            starting = asyncio.Semaphore(16)
            await asyncio.gather(*(trial.play(system, client, starting) for trial in batch))
            system.models.requests.clear()
            problems = [*await _problems(system, batch), *await _client_problems(system, batch)]
            assert not problems, problems[:10]
        chaos.figure("runs a second", len(trials) / (time.monotonic() - began))
        problems = [problem for problem in await audit(system) if not problem.startswith("current_time ")]
        assert not problems, problems[:10]
        effects = Counter(" ".join(line.split(" ")[:2]) for line in system.effects_noted())
    for recording in RECORDINGS:
        chaos.figure(f"bytes of {recording.sample}", len(recording.data))
    chaos.figure("answers cut", sum(len(trial.cuts) for trial in trials))
    chaos.figure("answers whole before their end", sum(trial.end is not None for trial in trials))
    chaos.figure("runs", len(trials))
    chaos.figure("of these cut too often", sum(trial.fails for trial in trials))
    ran = [trial.recording for trial in trials if not trial.fails]
    assert effects == Counter(effect for recording in ran for effect in _expected_effects(recording))


def _trials(chaos: Chaos, recording: Recording) -> Iterator[Trial]:
    cuts = list(_every_cut(recording) if chaos.full else _some_cuts(chaos, recording))
    whole = [cut for cut in cuts if cut.at >= recording.whole_at(cut.framing)]
    broken = [cut for cut in cuts if cut.at < recording.whole_at(cut.framing)]
    chaos.random.shuffle(broken)
    at = number = 0
    while at < len(broken):
        number += 1
        size = RETRIES + (number % 5 == 0)
        yield Trial(recording, number, broken[at : at + size], None)
        at += size
    for further, cut in enumerate(whole, number + 1):
        yield Trial(recording, further, [], cut)


def _every_cut(recording: Recording) -> Iterator[Cut]:
    for at in range(len(recording.data) + 1):
        yield from (Cut(at, _BROKEN_OFF), Cut(at, _AS_IF_WHOLE))


def _some_cuts(chaos: Chaos, recording: Recording) -> Iterator[Cut]:
    """The end of every frame, the byte before it, and a few others."""
    ends = recording.frame_ends()
    for at in ends:
        yield from (Cut(at, _BROKEN_OFF), Cut(at, _AS_IF_WHOLE))
    for at in (0, *(end - 1 for end in ends), *chaos.random.sample(range(len(recording.data)), 8)):
        yield Cut(at, chaos.random.choice((_BROKEN_OFF, _AS_IF_WHOLE)))


def _batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    return (items[at : at + size] for at in range(0, len(items), size))


def _expected_effects(recording: Recording) -> list[str]:
    effects = []
    for name, arguments in recording.step()["calls"]:
        if name == "get_weather":
            effects.append(f"get_weather {arguments['city']}:{arguments.get('unit', 'celsius')}")
        elif name == "add":
            effects.append(f"add {arguments['a']}")
    return effects


async def _problems(system: System, trials: Sequence[Trial]) -> list[str]:
    """Where what is committed and metered is not what the trial must lead to."""
    runs = [trial.watcher.run["id"] for trial in trials if trial.watcher]
    steps = {
        str(row["run_id"]): {
            "content": row["content"],
            "reasoning": row["reasoning"],
            "calls": [(call["name"], call["arguments"]) for call in json.loads(row["tool_calls"] or "[]")],
        }
        for row in await system.rows(
            "select run_id, content, reasoning, tool_calls from messages where run_id = any($1::uuid[]) and step = 1"
            " and role = 'assistant'",
            runs,
        )
    }
    metered = defaultdict(list)
    for row in await system.rows(
        "select run_id, state, error_code from model_calls where run_id = any($1::uuid[]) order by started_at", runs
    ):
        metered[str(row["run_id"])].append((row["state"], row["error_code"]))
    problems = []
    for trial in trials:
        assert trial.watcher is not None
        run_id = trial.watcher.run["id"]
        if steps.get(run_id) != (None if trial.fails else trial.recording.step()):
            problems.append(f"{trial}: committed {steps.get(run_id)}")
        expected = [("failed", "truncated")] * len(trial.cuts) + [("completed", None)] * (0 if trial.fails else 2)
        if metered[run_id] != expected:
            problems.append(f"{trial}: metered {metered[run_id]}")
    return problems


async def _client_problems(system: System, trials: Sequence[Trial]) -> list[str]:
    problems = await audit_watchers(system, [trial.watcher for trial in trials if trial.watcher])
    for trial in trials:
        assert trial.watcher is not None
        problems += [f"{trial}: {problem}" for problem in _broken_previews(trial.watcher.events)]
        discarded = sum(event["type"] == "discarded" for event in trial.watcher.events)
        expected = sum(trial.recording.shows_something(cut.at) for cut in trial.cuts[:RETRIES])
        if discarded != expected:
            problems.append(f"{trial}: discarded {discarded} times instead of {expected}")
        code = (trial.watcher.end or {}).get("error", {}).get("code")
        if code != ("provider_error" if trial.fails else None):
            problems.append(f"{trial}: ended with {trial.watcher.end}")
    return problems


def _broken_previews(events: Sequence[dict[str, Any]]) -> list[str]:
    """Where reasoning and calls, as they streamed in since the last `discarded`, are not those of the step."""
    problems = []
    reasoning, calls, shown = "", defaultdict[str, str](str), False
    for event in events:
        match event["type"]:
            case "reasoning":
                reasoning, shown = reasoning + event["content"], True
            case "tool_call_delta":
                calls[event["toolCallId"]] += event.get("delta", "")
                shown = True
            case "token":
                shown = True
            case "step":
                message = event["message"]
                committed = {call["toolCallId"]: call["arguments"] for call in message.get("toolCalls", [])}
                streamed = {id: _arguments(text) for id, text in calls.items()}
                if (reasoning, streamed) != (message.get("reasoning", ""), committed):
                    problems.append(f"step {event['index']} is {message}, and was shown as {reasoning!r}, {streamed}")
                reasoning, shown = "", False
                calls.clear()
            case "discarded":
                if not shown:
                    problems.append("discarded although there was nothing to forget")
                reasoning, shown = "", False
                calls.clear()
    return problems


def _arguments(text: str) -> Any:
    try:
        return msgspec.json.decode(text or "{}")
    except msgspec.DecodeError:
        return text
