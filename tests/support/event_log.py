"""What tests of the event log have in common: events to append, and a client that folds what it reads."""

from datetime import UTC, datetime
from uuid import UUID

from common.eventlog.log import EventLog, LogEvent
from common.ids import EventId, new_id
from common.model.events import (
    Cancelled,
    Discarded,
    Done,
    Error,
    Event,
    Reasoning,
    Started,
    Step,
    Token,
    ToolCallDelta,
    ToolResult,
    decode_event,
)
from common.model.messages import EventMessage, ToolCallRequest, Usage
from common.model.run_state import FinishReason, Outcome

_BORN = datetime(2026, 1, 1, tzinfo=UTC)


def started_event(run_id: UUID, attempt: int = 1, messages: list[EventMessage] | None = None) -> Started:
    """The first event of an attempt."""
    return Started(
        run_id=run_id,
        conversation_id=UUID(int=1),
        trigger_message_id=UUID(int=2),
        provider="echo",
        model="echo",
        attempt=attempt,
        messages=list(messages or []),
    )


def done_event(step_count: int = 1) -> Done:
    """The end of a completed run."""
    return Done(usage=Usage(), step_count=step_count, finish_reason=FinishReason.STOP)


def step_event(index: int, content: str, call_ids: tuple[str, ...] = ()) -> tuple[Step, EventMessage]:
    """A committed step and its message."""
    calls = [ToolCallRequest(tool_call_id=call_id, name="tool", arguments={}) for call_id in call_ids]
    message = EventMessage(
        id=new_id(),
        conversation_id=UUID(int=1),
        role="assistant",
        content=content,
        tool_calls=calls or None,
        created_at=_BORN,
    )
    return Step(index=index, message=message, usage=Usage()), message


def result_event(call_id: str, result: str) -> tuple[ToolResult, EventMessage]:
    """A committed tool result and its message."""
    event = ToolResult(tool_call_id=call_id, name="tool", result=result, is_error=False, outcome=Outcome.OK)
    message = EventMessage(
        id=new_id(),
        conversation_id=UUID(int=1),
        role="tool",
        content=result,
        tool_call_id=call_id,
        is_error=False,
        outcome=Outcome.OK,
        created_at=_BORN,
    )
    return event, message


class Viewer:
    """A client that trusts nothing: it refuses ids that do not increase, and holes."""

    def __init__(self) -> None:
        self.cursor: EventId | None = None
        self.messages: list[tuple[str, str]] = []
        self.shown: dict[str, str] = {}
        self.terminal: bytes | None = None

    async def read(self, log: EventLog, run_id: UUID, limit: int = 100) -> bool:
        """Takes what comes after the cursor; False when there is nothing."""
        events = await log.read_after(run_id, self.cursor, limit)
        for event in events:
            self.take(event)
        return bool(events)

    async def read_all(self, log: EventLog, run_id: UUID) -> None:
        """Reads to the end of the stream."""
        while await self.read(log, run_id):
            pass

    def take(self, event: LogEvent) -> None:
        """Folds one event; an event without an id can only be a `started`."""
        if event.id is not None:
            self._check_follows(event.id)
            self.cursor = event.id
        assert self.terminal is None, f"{event} came after the end"
        self._fold(decode_event(event.data), event)

    @property
    def text(self) -> str:
        """The unfinished step's text."""
        return self.shown.get("text", "")

    def copy(self) -> "Viewer":
        """Another client with the same cursor."""
        twin = Viewer()
        twin.cursor, twin.terminal = self.cursor, self.terminal
        twin.messages, twin.shown = list(self.messages), dict(self.shown)
        return twin

    def _check_follows(self, event_id: EventId) -> None:
        if self.cursor is not None:
            assert event_id > self.cursor, f"{event_id} after {self.cursor}"
        if event_id.n != 1:
            assert self.cursor == EventId(event_id.attempt, event_id.n - 1), f"hole: {event_id} after {self.cursor}"

    def _fold(self, event: Event, raw: LogEvent) -> None:
        if raw.id is not None:
            assert (raw.id.n == 1) == isinstance(event, Started), f"{raw}: n = 1 is always `started`"
        match event:
            case Started():
                self.messages = [_seen(message) for message in event.messages or []]
                self.shown = {}
            case Token():
                self._show("text", event.content)
            case Reasoning():
                self._show("reasoning", event.content)
            case ToolCallDelta():
                self._show(event.tool_call_id, event.delta)
            case Discarded():
                self.shown = {}
            case Step():
                self.shown = {}
                self.messages.append(_seen(event.message))
            case ToolResult():
                self.messages.append((event.tool_call_id, event.result))
            case Done() | Error() | Cancelled():
                self.terminal = raw.data
            case _:
                pass

    def _show(self, what: str, piece: str) -> None:
        self.shown[what] = self.shown.get(what, "") + piece


def committed(messages: list[EventMessage]) -> list[tuple[str, str]]:
    """Committed messages as a Viewer sees them."""
    return [_seen(message) for message in messages]


def _seen(message: EventMessage) -> tuple[str, str]:
    return (message.tool_call_id or "", message.content)
