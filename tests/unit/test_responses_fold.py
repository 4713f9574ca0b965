"""The fold into OpenAI's Responses: its frames, their numbers, and what a response holds in the end."""

from typing import Any

import msgspec
import pytest

from api.protocols import PROTOCOLS
from api.protocols.response_objects import response_of
from common.ids import EventId
from common.model.events import Started, Token, decode_event, encode_event
from common.model.messages import EventMessage, RunError, Usage
from common.model.responses import parse_id
from common.model.run_state import FinishReason, RunErrorCode, RunState
from tests.support.golden_responses import CASES, RUN, events_of, fold, golden_of, place, run_row


def frames_of(stream: bytes) -> list[dict[str, Any]]:
    """The JSON of each frame, whose `event:` line must say the same as its `type`."""
    frames = []
    for frame in stream.decode().removesuffix("\n\n").split("\n\n"):
        name, data = frame.split("\n")
        frames.append(msgspec.json.decode(data.removeprefix("data: ")))
        assert name == f"event: {frames[-1]['type']}"
    return frames


def messages_of(case: str) -> list[EventMessage]:
    """What the run of a case has committed: as a `started` tells it."""
    [started] = [event for _, data in events_of(case) if isinstance(event := decode_event(data), Started)]
    assert started.messages is not None
    return started.messages


@pytest.mark.parametrize("case", CASES)
def test_fold_gives_the_golden_frames(case: str) -> None:
    """Each run is told in the frames that were looked at by hand."""
    assert fold(events_of(case)) == golden_of(case)


@pytest.mark.parametrize("case", CASES)
def test_replay_after_any_number_gives_exactly_the_rest(case: str) -> None:
    """Numbers only increase, and a client that has seen one is sent what has greater ones, byte for byte."""
    whole = golden_of(case)
    rests = whole.split(b"\n\n")
    numbers = [frame["sequence_number"] for frame in frames_of(whole)]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] < 2**53
    for index, number in enumerate(numbers):
        assert fold(events_of(case), after=number) == b"\n\n".join(rests[index + 1 :])


@pytest.mark.parametrize("case", CASES)
def test_frames_do_not_depend_on_how_events_are_batched(case: str) -> None:
    """Event by event gives the same bytes as all at once."""
    one_by_one = PROTOCOLS["responses"](place())
    assert b"".join(one_by_one.encode([event]) for event in events_of(case)) == golden_of(case)


@pytest.mark.parametrize("case", CASES)
def test_every_item_is_opened_once_and_closed_once(case: str) -> None:
    """An index and an id belong to one item; all are done before the end, whose output holds what is done as it is."""
    frames = frames_of(golden_of(case))
    added = {f["output_index"]: f["item"]["id"] for f in frames if f["type"] == "response.output_item.added"}
    done = {f["output_index"]: f["item"] for f in frames if f["type"] == "response.output_item.done"}
    assert [frame["type"] for frame in frames[:2]] == ["response.created", "response.in_progress"]
    assert list(added) == list(range(len(added)))
    assert len(set(added.values())) == len(added)
    assert {index: item["id"] for index, item in done.items()} == added
    output = frames[-1]["response"]["output"]
    assert [item for item in output if item not in done.values()] == []
    whole = [item["id"] for _, item in sorted(done.items()) if item["status"] in ("completed", "failed")]
    assert [item["id"] for item in output if item["status"] != "incomplete"] == whole


@pytest.mark.parametrize("case", CASES)
def test_deltas_add_up_to_what_their_part_says_in_the_end(case: str) -> None:
    """The text of each part is that of its deltas, so that nobody who only adds them up misses a letter."""
    said: dict[tuple[str, int], str] = {}
    for frame in frames_of(golden_of(case)):
        match frame["type"].removeprefix("response."):
            case "output_text.delta":
                part = (frame["item_id"], frame["content_index"])
                said[part] = said.get(part, "") + frame["delta"]
            case "output_text.done":
                assert said[frame["item_id"], frame["content_index"]] == frame["text"]


def test_first_frame_waits_for_no_event() -> None:
    """`response.created` says the id before a worker has the run, and once; its number is 0."""
    fold_of_queued = PROTOCOLS["responses"](place())
    [created] = frames_of(fold_of_queued.encode([]))
    assert (created["type"], created["sequence_number"]) == ("response.created", 0)
    assert created["response"]["status"] == "queued"
    assert fold_of_queued.encode([]) == b""
    assert PROTOCOLS["responses"](place(after=0)).encode([]) == b""


def test_event_of_a_newer_worker_is_passed_over() -> None:
    """A kind of event that is not known yet costs nobody the stream."""
    events = events_of("text")
    assert fold([*events[:2], (EventId(1, 2), b'{"type":"confetti"}'), *events[2:]]) == golden_of("text")


def test_log_that_is_gone_gives_the_response_that_was_streamed() -> None:
    """`started` and the end that Postgres has make the same last frame as the run's own events."""
    streamed, stored = (frames_of(golden_of(case))[-1] for case in ("tools", "stored"))
    assert stored == streamed


def test_response_read_from_the_database_is_the_one_that_was_streamed() -> None:
    """GET and the stream's last event agree in every field."""
    usage = Usage(input_tokens=12, output_tokens=7, cached_input_tokens=4, cache_write_tokens=2, reasoning_tokens=3)
    completed = run_row(RunState.COMPLETED, finish_reason=FinishReason.STOP, usage=usage)
    read = response_of(completed, messages_of("stored"))
    assert msgspec.to_builtins(read) == frames_of(golden_of("stored"))[-1]["response"]


@pytest.mark.parametrize("case", ["cancelled", "failed"])
def test_partial_text_is_an_incomplete_message_in_both(case: str) -> None:
    """What an unfinished step had said stands in the stream's last response as in the one that is read."""
    error = RunError(code=RunErrorCode.PROVIDER_ERROR, message="The provider is overloaded.", retryable=True)
    ended = {
        "cancelled": run_row(RunState.CANCELLED, partial_text="One, two, "),
        "failed": run_row(RunState.FAILED, partial_text="One, two, ", error=error),
    }
    streamed = frames_of(golden_of(case))[-1]["response"]
    read = msgspec.to_builtins(response_of(ended[case], []))
    assert {**read, "usage": None} == streamed
    assert streamed["status"] == case


def test_cancelled_run_ends_as_incomplete() -> None:
    """There is no event for a cancelled response: `response.incomplete` says so by its status."""
    assert frames_of(golden_of("cancelled"))[-1]["type"] == "response.incomplete"


def test_answer_that_was_cut_short_is_incomplete() -> None:
    """`length` is OpenAI's `max_output_tokens`."""
    last = frames_of(golden_of("length"))[-1]
    assert last["type"] == "response.incomplete"
    assert last["response"]["status"] == "incomplete"
    assert last["response"]["incomplete_details"] == {"reason": "max_output_tokens"}


@pytest.mark.parametrize("state", [RunState.WAITING, RunState.QUEUED, RunState.RUNNING])
def test_response_of_a_run_that_has_not_ended_shows_no_usage(state: RunState) -> None:
    """A response is queued until a worker has it, and in progress until it ends."""
    response = response_of(run_row(state), [])
    assert response.status == ("in_progress" if state is RunState.RUNNING else "queued")
    assert response.usage is None


def test_started_without_room_for_messages_loses_no_later_step() -> None:
    """A step whose number is not the one expected is told in items of its own number."""
    events = events_of("tools")
    short = Started(
        run_id=RUN,
        conversation_id=RUN,
        trigger_message_id=RUN,
        provider="echo",
        model="echo",
        attempt=2,
        message_ids=[RUN],
    )
    told = [
        (EventId(2, 1), encode_event(short)),
        (EventId(2, 2), encode_event(Token(content="Done."))),
        (EventId(2, 3), events[-2][1]),
        (EventId(2, 4), events[-1][1]),
    ]
    [item] = frames_of(fold(told))[-1]["response"]["output"]
    assert item["id"] == f"msg_{RUN.hex}_2"
    assert item["content"][0]["text"] == "Done."


@pytest.mark.parametrize(
    ("text", "prefix", "known"),
    [
        (f"resp_{RUN.hex}", "resp", True),
        (f"conv_{RUN.hex}", "conv", True),
        (str(RUN), "resp", True),
        (RUN.hex, "conv", True),
        (f"conv_{RUN.hex}", "resp", False),
        (f"resp_{RUN.hex}", "conv", False),
        (f"resp_{RUN.hex.upper()}", "resp", False),
        (f"resp_{RUN.hex}0", "resp", False),
        ("resp_", "resp", False),
        ("", "resp", False),
    ],
)
def test_ids_are_read_in_both_forms(text: str, prefix: Any, known: bool) -> None:
    """OpenAI's form with our hex, or a plain UUID; never the id of another kind."""
    assert parse_id(text, prefix) == (RUN if known else None)
