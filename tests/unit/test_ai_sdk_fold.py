"""The AI SDK's fold: what each event becomes (golden files), and what its client makes of that."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.protocols import PROTOCOLS
from api.protocols.ai_sdk_history import ui_messages
from api.protocols.fold import EventData, Place
from common.ids import EventId, new_id
from common.model.events import Done, Started, Step, Token, ToolResult, decode_event, encode_event
from common.model.messages import EventMessage, Message, Usage
from common.model.run_state import FinishReason
from tests.support.ai_sdk_client import SdkClient

RUN = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
GOLDEN = sorted((Path(__file__).parent / "golden/ai_sdk").glob("*.txt"))
OLD, NEW = "ai-sdk", "ai-sdk-7"

golden = pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
protocol = pytest.mark.parametrize("protocol", [OLD, NEW])


def read(path: Path, protocol: str) -> Iterator[tuple[EventData, list[str]]]:
    """The events of a golden file (`> id json`), each with the frames that are due after it: `<` for all clients,
    `<6` for those before version 7, `<7` for the others."""
    event: EventData | None = None
    frames: list[str] = []
    for line in path.read_text("utf-8").splitlines():
        if line.startswith(">"):
            if event is not None:
                yield event, frames
            _, name, data = line.split(" ", 2)
            event, frames = (None if name == "-" else EventId(*map(int, name.split("-"))), data.encode()), []
        elif line[1] in (" ", "7" if protocol == NEW else "6"):
            frames.append(line[3:])
    assert event is not None
    yield event, frames


def fold(events: list[EventData], protocol: str) -> bytes:
    return PROTOCOLS[protocol](Place(RUN, False, None)).encode(events)


@protocol
@golden
def test_each_event_becomes_the_golden_frames(path: Path, protocol: str) -> None:
    """What is sent after each event of the file is what the file says, to the byte."""
    encoder = PROTOCOLS[protocol](Place(RUN, False, None))
    for event, frames in read(path, protocol):
        assert encoder.encode([event]).decode() == "".join(f"data: {frame}\n\n" for frame in frames), event


@protocol
@golden
def test_client_takes_every_frame(path: Path, protocol: str) -> None:
    """No delta without its start, no result without its call, nothing left open, nothing behind the end."""
    client = SdkClient().read(fold([event for event, _ in read(path, protocol)], protocol))

    assert client.id == str(RUN)
    assert client.ended_by == "[DONE]"
    assert client.open == {}
    assert {part["state"] for part in client.parts if "state" in part} <= {"output-available", "output-error"}


@golden
def test_reset_step_is_not_sent_to_those_who_do_not_know_it(path: Path) -> None:
    """Before version 7 the client would throw at it."""
    assert b"reset-step" not in fold([event for event, _ in read(path, OLD)], OLD)


@protocol
@given(path=st.sampled_from(GOLDEN), data=st.data())
def test_message_does_not_depend_on_how_events_arrive(protocol: str, path: Path, data: st.DataObject) -> None:
    """One by one, or many at once: a replay says what was sent live, in as few pieces as it can."""
    events = [event for event, _ in read(path, protocol)]
    encoder = PROTOCOLS[protocol](Place(RUN, False, None))
    sent = b""
    rest = events
    while rest:
        count = data.draw(st.integers(1, len(rest)))
        sent, rest = sent + encoder.encode(rest[:count]), rest[count:]

    whole = fold(events, protocol)

    live, replayed = SdkClient().read(sent), SdkClient().read(whole)
    assert (live.id, live.parts, live.ended_by) == (replayed.id, replayed.parts, replayed.ended_by)
    assert len(whole) <= len(sent)


def test_pieces_that_come_together_are_sent_as_one() -> None:
    """A client works for each piece, and those of a replay come all at once."""
    [path] = [path for path in GOLDEN if path.stem == "reasoning_and_tools"]
    frames = fold([event for event, _ in read(path, OLD)], OLD)
    assert b'"type":"reasoning-delta","id":"1-2","delta":"hmm"' in frames


@pytest.mark.parametrize(
    ("case", "protocol"),
    [
        *(
            (case, protocol)
            for case in ("text", "reasoning_and_tools", "unseen_previews", "replaced_after_a_result")
            for protocol in (OLD, NEW)
        ),
        *((case, NEW) for case in ("replaced_attempt", "committed_unheard", "discarded", "log_lost_in_between")),
        ("log_is_gone", OLD),
    ],
)
def test_reload_shows_what_the_stream_has_shown(case: str, protocol: str) -> None:
    """The message made of the stream is the one that is made of what is stored, but for the state of text parts."""
    path = next(path for path in GOLDEN if path.stem == case)
    events = [event for event, _ in read(path, protocol)]

    [reloaded] = ui_messages([(1, message) for message in stored(events)], [])

    client = SdkClient().read(fold(events, protocol))
    assert client.id == reloaded.id
    for part in (shown := msgspec.to_builtins(reloaded.parts)):
        if part["type"] in ("text", "reasoning"):
            assert part.pop("state") == "done"
    assert client.parts == shown


@protocol
def test_log_that_fell_back_doubles_and_loses_no_step(protocol: str) -> None:
    """What is told again (without ids) of steps that the client has is skipped; what only `started` tells is not."""
    encoder = PROTOCOLS[protocol](Place(RUN, False, None))
    one, two, three = (_message(text) for text in ("one ", "two ", "three "))
    frames = b""
    for events in (
        [
            (EventId(1, 1), _started(1)),
            *_step(1, one, EventId(1, 2)),
            (EventId(1, 4), encode_event(Token(content="tw"))),
        ],
        [(None, _started(1)), *_step(1, one), (None, encode_event(Token(content="tw")))],
        [(EventId(2, 1), _started(2, one, two)), *_step(3, three, EventId(2, 2))],
        [(EventId(2, 4), encode_event(Done(usage=Usage(), step_count=3, finish_reason=FinishReason.STOP)))],
    ):
        frames += encoder.encode(events)

    told = [part["text"] for part in SdkClient().read(frames).parts if part["type"] == "text"]

    # Who cannot be told to forget sees what was given up, and then what holds.
    assert told == (["one ", "two ", "three "] if protocol == NEW else ["one ", "tw", "tw", "two ", "three "])


def _started(attempt: int, *messages: EventMessage) -> bytes:
    return encode_event(
        Started(
            run_id=RUN,
            conversation_id=RUN,
            trigger_message_id=RUN,
            provider="p",
            model="m",
            attempt=attempt,
            messages=list(messages),
        )
    )


def _message(text: str) -> EventMessage:
    return EventMessage(
        id=new_id(), conversation_id=RUN, run_id=RUN, role="assistant", content=text, created_at=datetime.now(UTC)
    )


def _step(index: int, message: EventMessage, first: EventId | None = None) -> list[EventData]:
    """The step's text, and the step."""
    ids = (None, None) if first is None else (first, EventId(first.attempt, first.n + 1))
    text = encode_event(Token(content=message.content))
    step = encode_event(Step(index=index, message=message, usage=Usage()))
    return [(ids[0], text), (ids[1], step)]


@protocol
def test_event_of_a_newer_worker_is_left_out(protocol: str) -> None:
    """A type that is not known here says nothing to the client, and does not end its stream."""
    assert fold([(EventId(1, 1), b'{"type":"paused","why":"later"}')], protocol) == b""


def stored(events: list[EventData]) -> list[Message]:
    """What the run has committed by the end of these events, as Postgres has it."""
    messages: dict[object, Message] = {}
    for _, data in events:
        event = decode_event(data)
        if isinstance(event, Started):
            messages |= {message.tool_call_id or message.id: message for message in event.messages or ()}
        elif isinstance(event, Step):
            messages[event.message.id] = event.message
        elif isinstance(event, ToolResult):
            messages[event.tool_call_id] = result_of(event)
    return list(messages.values())


def result_of(event: ToolResult) -> Message:
    return Message(
        id=new_id(),
        conversation_id=RUN,
        run_id=RUN,
        role="tool",
        content=event.result,
        tool_call_id=event.tool_call_id,
        is_error=event.is_error,
        created_at=datetime.now(UTC),
    )
