"""A client that watches a run to its end, whatever is killed meanwhile: it resumes by the last id that it has seen."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import httpx

from common.ids import EventId
from tests.support.raw_stream import Frame
from tests.support.system import TERMINAL, Client

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0


class Seen(NamedTuple):
    """A frame, when it came (monotonic seconds), and over which of the client's connections."""

    frame: Frame
    at: float
    connection: int


class Watcher:
    """One run as a client sees it. With several APIs (clients of one workspace), each connection goes to the next."""

    def __init__(self, clients: Sequence[Client], run: dict[str, Any]) -> None:
        self.run = run
        self.seen: list[Seen] = []
        self.connections = 0
        self._clients = clients

    @property
    def cursor(self) -> str | None:
        """The last id that came."""
        return next((seen.frame.id for seen in reversed(self.seen) if seen.frame.id), None)

    @property
    def events(self) -> list[dict[str, Any]]:
        """All events, in the order in which they came."""
        return [seen.frame.event for seen in self.seen]

    @property
    def end(self) -> dict[str, Any] | None:
        """The terminal event, once it has come."""
        return self.events[-1] if self.seen and self.events[-1]["type"] in TERMINAL else None

    @property
    def completed(self) -> bool:
        """Whether the run has ended well for its client."""
        return self.end is not None and self.end["type"] == "done"

    async def watch(self, timeout_s: float = 60) -> Self:
        """Returns once the end has come; fails with what it has seen when that takes longer."""
        pause_s = _FIRST_PAUSE_S
        try:
            async with asyncio.timeout(timeout_s):
                while self.end is None:
                    before = len(self.seen)
                    await self._connect()
                    pause_s = _FIRST_PAUSE_S if len(self.seen) > before else min(pause_s * 2, _LONGEST_PAUSE_S)
                    if self.end is None:
                        await asyncio.sleep(pause_s)
        except TimeoutError:
            raise AssertionError(f"run {self.run['id']} has not ended for its client, at {self.cursor}") from None
        return self

    async def _connect(self) -> None:
        client = self._clients[self.connections % len(self._clients)]
        self.connections += 1
        try:
            stream = await client.stream(self.run, after=self.cursor)
        except (OSError, EOFError, TimeoutError, httpx.TransportError):
            return
        try:
            if stream.status != 200:
                return
            taken = 0
            while await stream.read_more():
                frames = stream.frames
                now = time.monotonic()
                self.seen += [Seen(frame, now, self.connections) for frame in frames[taken:]]
                taken = len(frames)
        except (OSError, EOFError):
            pass
        finally:
            stream.close()

    def problems(self) -> list[str]:
        """Gaps, ids that do not increase, and text that a committed step does not bear out."""
        return [
            f"run {self.run['id']}: {problem}" for problem in [*_broken_order(self.seen), *_broken_text(self.events)]
        ]

    def held(self) -> list[dict[str, Any]]:
        """The run's messages as the client holds them at the end: role, text, calls."""
        messages: list[dict[str, Any]] = []
        for event in self.events:
            match event["type"]:
                case "started":
                    messages = [_essence(message) for message in event["messages"]]
                case "step":
                    messages.append(_essence(event["message"]))
                case "tool_result":
                    call = event["toolCallId"]
                    messages.append({"role": "tool", "toolCallId": call, "content": event["result"]})
        return sorted(messages, key=_place_in(messages))


def stored(messages: Sequence[dict[str, Any]], run: dict[str, Any]) -> list[dict[str, Any]]:
    """What the conversation's messages say of the run, in the form of `Watcher.held`."""
    own = [_essence(message) for message in messages if message.get("runId") == run["id"]]
    return sorted(own, key=_place_in(own))


def _essence(message: dict[str, Any]) -> dict[str, Any]:
    if message["role"] == "tool":
        return {"role": "tool", "toolCallId": message["toolCallId"], "content": message["content"]}
    calls = [(call["toolCallId"], call["name"]) for call in message.get("toolCalls") or []]
    return {"role": message["role"], "content": message["content"], "calls": calls}


def _place_in(messages: list[dict[str, Any]]) -> Any:
    """Results come in the order of their ends, and are stored in the order of their calls."""
    calls = [call for message in messages for call, _ in message.get("calls", ())]
    steps = {call: at for at, message in enumerate(messages) for call, _ in message.get("calls", ())}
    order = {id(message): (at, -1) for at, message in enumerate(messages)}

    def place(message: dict[str, Any]) -> tuple[int, int]:
        if message["role"] != "tool" or message["toolCallId"] not in steps:
            return order[id(message)]
        return steps[message["toolCallId"]], calls.index(message["toolCallId"])

    return place


def _broken_order(seen: Sequence[Seen]) -> list[str]:
    """Within an attempt each `n` follows the one before; a new attempt begins with `started`; ids never go back.

    After frames without an id (a repair) any greater id may come.
    """
    problems = []
    last: EventId | None = None
    repaired = False
    for frame, _, connection in seen:
        if frame.id is None:
            repaired = repaired or frame.event["type"] == "started"
            if not repaired:
                problems.append(f"an event without id that no `started` precedes, connection {connection}")
            continue
        here = _read_id(frame.id)
        if last is not None and here <= last:
            problems.append(f"{here} after {last}, connection {connection}")
        elif not repaired:
            follows = last is not None and here == (last.attempt, last.n + 1)
            begins = here.n == 1 and frame.event["type"] == "started"
            if not (follows or begins):
                problems.append(f"gap: {here} after {last}, connection {connection}")
        last, repaired = here, False
    return problems


def _broken_text(events: Sequence[dict[str, Any]]) -> list[str]:
    """The tokens of a step, put together, are its text; none is missing, none doubled."""
    problems = []
    text = ""
    for event in events:
        match event["type"]:
            case "started" | "discarded":
                text = ""
            case "token":
                text += event["content"]
            case "step":
                content = event["message"]["content"]
                if text != content:
                    problems.append(f"step {event['index']} says {content!r}, its tokens {text!r}")
                text = ""
    return problems


def _read_id(text: str) -> EventId:
    attempt, n = text.rpartition(":")[2].split("-")
    return EventId(int(attempt), int(n))
