"""Clients of the run model: each follows a run through the real relay, and trusts nothing that it is told."""

import asyncio
import copy
from contextlib import aclosing
from typing import Any
from uuid import UUID

from api.relay.batch import Batch
from api.relay.follow import Follower
from api.relay.hub import Hub, Subject
from common.eventlog.log import LogEvent
from common.ids import EventId
from common.model.events import Discarded, Started, Step, Terminal, Token, ToolResult, decode_event

_FOR_EVER = 3600.0


class Answer:
    """An assistant message and what became of its calls, as clients and database must agree on it."""

    def __init__(self, content: str, call_ids: list[str]) -> None:
        self.content = content
        self.results: dict[str, str | None] = dict.fromkeys(call_ids)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Answer) and vars(self) == vars(other)

    def __repr__(self) -> str:
        return f"{self.content!r} {self.results}"


def answers_of(messages: list[Any]) -> list[Answer]:
    """Committed messages (of events or of the database) as answers."""
    answers: list[Answer] = []
    for message in messages:
        if message.role == "assistant":
            answers.append(Answer(message.content, [call.tool_call_id for call in message.tool_calls or []]))
        else:
            note_result(answers, message.tool_call_id, message.content)
    return answers


def note_result(answers: list[Answer], call_id: str, result: str) -> None:
    """Puts a call's result where the call is, once."""
    [answer] = [answer for answer in answers if call_id in answer.results]
    assert answer.results[call_id] is None, f"a second result of {call_id}"
    answer.results[call_id] = result


class View:
    """What a client has been told of one run. Refuses ids that do not increase, holes, and doubled or missing text."""

    def __init__(self, run_id: UUID) -> None:
        self.run_id = run_id
        self.cursor: EventId | None = None
        self.answers: list[Answer] = []
        self.shown = ""
        self.terminal: bytes | None = None
        self._repaired = False

    def take(self, event: LogEvent) -> None:
        """Folds one event."""
        assert self.terminal is None, f"{event} came after the end"
        decoded = decode_event(event.data)
        if event.id is not None:
            self._check_follows(event.id, decoded)
            self.cursor = event.id
        self._repaired = (event.id is None) and (self._repaired or isinstance(decoded, Started))
        match decoded:
            case Started():
                self.answers, self.shown = answers_of(decoded.messages or []), ""
            case Token():
                self.shown += decoded.content
            case Discarded():
                self.shown = ""
            case Step():
                assert self.shown == decoded.message.content, f"{self.shown!r} was shown of {decoded.message.content!r}"
                self.shown = ""
                self.answers += answers_of([decoded.message])
            case ToolResult():
                note_result(self.answers, decoded.tool_call_id, decoded.result)
            case _ if isinstance(decoded, Terminal):
                self.terminal = event.data
            case _:
                pass

    def copy(self) -> "View":
        """What a client that leaves now knows when it comes again."""
        return copy.deepcopy(self)

    def _check_follows(self, event_id: EventId, event: Any) -> None:
        assert (event_id.n == 1) == isinstance(event, Started), f"{event_id}: n = 1 is always `started`"
        assert self.cursor is None or event_id > self.cursor, f"{event_id} after {self.cursor}"
        if event_id.n > 1 and not (self._repaired and isinstance(event, Terminal)):
            assert self.cursor == (event_id.attempt, event_id.n - 1), f"hole: {event_id} after {self.cursor}"


class ModelClient:
    """Reads until it leaves or the run has ended; while it is `stalled`, it asks for nothing."""

    def __init__(self, hub: Hub, subject: Subject, view: View, violations: list[str]) -> None:
        self.view = view
        self.memories = [view.copy()]
        self.going = asyncio.Event()
        self.going.set()
        self._follower = Follower(hub, subject, view.cursor, _FOR_EVER)
        self._violations = violations
        self._task = asyncio.create_task(self._read())

    @property
    def has_ended(self) -> bool:
        return self._task.done()

    async def leave(self) -> None:
        """Closes the connection."""
        self._task.cancel()
        await asyncio.wait({self._task})

    async def _read(self) -> None:
        try:
            async with aclosing(self._follower.batches(self._take_directly)) as batches:
                async for some in batches:
                    self._take(*some)
                    await self.going.wait()
        except Exception as error:
            self._violations.append(f"a client was told nonsense: {error!r} (of {self.view.run_id})")

    def _take_directly(self, batch: Batch) -> bool:
        if self.going.is_set():
            self._take(batch)
        return self.going.is_set()

    def _take(self, *batches: Batch) -> None:
        for batch in batches:
            for event in batch.events:
                self.view.take(event)
        self.memories = [*self.memories[-4:], self.view.copy()]
