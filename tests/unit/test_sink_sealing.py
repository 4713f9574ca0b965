"""From events to batches: limits, cuts, order."""

import random
from collections import deque

import pytest

from common.eventlog.publication import MAX_BATCH_BYTES
from common.model.events import Event, Reasoning, Token, ToolResult, decode_event
from common.model.messages import EventMessage
from common.model.run_state import Outcome
from tests.support.event_log import result_event, step_event
from worker.run.sealing import MAX_RESULT_BYTES, cut_result, insert_in_call_order, take_batch


def _result(text: str) -> ToolResult:
    return ToolResult(tool_call_id="1", name="tool", result=text, is_error=False, outcome=Outcome.OK)


def test_take_batch_encodes_all_that_waits() -> None:
    """A batch is the events' JSON in order, neighbouring tokens joined, after the event that must come first."""
    pending: deque[Event] = deque([Token(content="a"), Token(content="b"), Reasoning(content="c")])
    assert take_batch(pending, b"first") == (
        b"first",
        b'{"type":"token","content":"ab"}',
        b'{"type":"reasoning","content":"c"}',
    )
    assert not pending


def test_take_batch_stays_below_the_limit_and_loses_nothing() -> None:
    """What does not fit stays for the next batch, in order."""
    chunk = "x" * 30_000
    contents = [f"{index}{chunk}" for index in range(30)]
    # Alternating kinds, so that nothing is joined.
    pending: deque[Event] = deque(
        Token(content=text) if index % 2 else Reasoning(content=text) for index, text in enumerate(contents)
    )
    batches = []
    while pending:
        batches.append(take_batch(pending))
    assert len(batches) == 4
    assert all(sum(map(len, batch)) + len(batch) <= MAX_BATCH_BYTES for batch in batches)
    events = [decode_event(data) for batch in batches for data in batch]
    assert [event.content for event in events if isinstance(event, Token | Reasoning)] == contents


def test_take_batch_of_one_huge_event_holds_it_alone() -> None:
    """An event that no batch can hold goes by itself, after what was before it."""
    step, _ = step_event(1, "x" * MAX_BATCH_BYTES)
    pending: deque[Event] = deque([Token(content="a"), step, Token(content="b")])
    assert [len(take_batch(pending)) for _ in range(3)] == [1, 1, 1]
    assert not pending


def test_take_batch_with_a_huge_first_event_takes_nothing_else() -> None:
    """A `started` of nearly 1 MB is a batch of its own."""
    pending: deque[Event] = deque([Token(content="a")])
    assert len(take_batch(pending, b"x" * 900_000)) == 1
    assert pending == deque([Token(content="a")])


def test_take_batch_joins_a_surrogate_pair_that_came_in_two_pieces() -> None:
    """Half a character in each of two tokens is one character in the event."""
    pending: deque[Event] = deque([Token(content="a\ud83d"), Token(content="\ude00b")])
    assert [decode_event(data) for data in take_batch(pending)] == [Token(content="a\U0001f600b")]


def test_take_batch_replaces_a_lone_surrogate() -> None:
    """What is no text cannot stop the run's events."""
    pending: deque[Event] = deque([_result("a\ud83d")])
    assert [decode_event(data) for data in take_batch(pending)] == [_result("a\ufffd")]


def test_cut_result_leaves_small_results_alone() -> None:
    """Up to the limit a result is whole and not marked."""
    result = _result("x" * MAX_RESULT_BYTES)
    assert cut_result(result) is result


@pytest.mark.parametrize("text", ["x", "é", "€", "\U0001f600"])
def test_cut_result_never_splits_a_character(text: str) -> None:
    """A longer result is cut to whole characters within the limit, and marked."""
    cut = cut_result(_result("." + text * MAX_RESULT_BYTES))
    size = len(cut.result.encode())
    assert MAX_RESULT_BYTES - 4 < size <= MAX_RESULT_BYTES
    assert set(cut.result) == {".", text}
    assert cut.truncated is True


def test_insert_in_call_order_sorts_results_of_parallel_calls() -> None:
    """In whatever order calls end, their results stand behind their step in the order of the calls."""
    calls = ("a", "b", "c", "d")
    for seed in range(20):
        messages: list[EventMessage] = [step_event(1, "", calls)[1]]
        for call in random.Random(seed).sample(calls, len(calls)):
            insert_in_call_order(messages, result_event(call, call)[1])
        assert [message.tool_call_id for message in messages] == [None, *calls]


def test_insert_in_call_order_knows_only_the_last_step() -> None:
    """Results of an earlier step stay where they are, also when ids are reused."""
    messages = [
        step_event(1, "", ("a", "b"))[1],
        result_event("a", "1a")[1],
        result_event("b", "1b")[1],
        step_event(2, "", ("b", "a"))[1],
    ]
    insert_in_call_order(messages, result_event("a", "2a")[1])
    insert_in_call_order(messages, result_event("b", "2b")[1])
    assert [message.content for message in messages] == ["", "1a", "1b", "", "2b", "2a"]
