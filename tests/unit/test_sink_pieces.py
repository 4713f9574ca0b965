"""Pieces of a step: joined before they are sent, gathered to be shown again."""

from collections import deque

from common.model.events import Discarded, Event, Reasoning, Token, ToolCallDelta
from tests.support.event_log import step_event
from worker.run.pieces import MAX_PIECE_CHARACTERS, UnfinishedStep, compact, take_joined


def _delta(call_id: str, text: str) -> ToolCallDelta:
    return ToolCallDelta(tool_call_id=call_id, name="tool", delta=text)


def _take_all(*events: Event) -> list[Event]:
    pending = deque(events)
    taken = []
    while pending:
        taken.append(take_joined(pending))
    return taken


def test_take_joined_merges_neighbours_of_one_kind() -> None:
    """Neighbouring tokens become one token; reasoning in between keeps its turn."""
    reasoning = Reasoning(content="r"), Reasoning(content="s")
    assert _take_all(Token(content="a"), Token(content="b"), *reasoning, Token(content="c")) == [
        Token(content="ab"),
        Reasoning(content="rs"),
        Token(content="c"),
    ]


def test_take_joined_merges_deltas_of_the_same_call_only() -> None:
    """The arguments of two calls are never mixed."""
    events = [_delta("1", ""), _delta("1", "{"), _delta("2", "["), _delta("1", "}")]
    assert _take_all(*events) == [_delta("1", "{"), _delta("2", "["), _delta("1", "}")]


def test_take_joined_leaves_other_events_alone() -> None:
    """What is no piece is taken as it is, and nothing is joined across it."""
    discarded = Discarded(reason="provider_error")
    assert _take_all(Token(content="a"), discarded, Token(content="b")) == [
        Token(content="a"),
        discarded,
        Token(content="b"),
    ]


def test_take_joined_stops_at_the_limit() -> None:
    """What a long outage left unsent is not joined into one huge event, and nothing of it is lost."""
    half = "x" * (MAX_PIECE_CHARACTERS // 2)
    taken = _take_all(*(Token(content=half) for _ in range(5)))
    assert [len(event.content) for event in taken if isinstance(event, Token)] == [32_000, 32_000, 16_000]


def test_compact_gathers_what_waits_between_commits() -> None:
    """Pieces are gathered as a step shows them, other events keep their places, and the characters are counted."""
    step, _ = step_event(1, "ab")
    discarded = Discarded(reason="provider_error")
    pending: deque[Event] = deque(
        [
            *(_delta("1", "{"), _delta("2", "["), _delta("1", "}"), _delta("2", "]")),
            discarded,
            *(Token(content="a"), Token(content="b"), step),
            *(Reasoning(content="c"), Token(content="d"), Token(content="e")),
        ]
    )
    assert compact(pending) == 9
    assert list(pending) == [
        *(_delta("1", "{}"), _delta("2", "[]")),
        discarded,
        *(Token(content="ab"), step),
        *(Reasoning(content="c"), Token(content="de")),
    ]


def test_unfinished_step_shows_everything_in_order() -> None:
    """Text and reasoning keep their turns; a call's deltas are gathered where the call began."""
    step = UnfinishedStep()
    for piece in (
        Reasoning(content="why "),
        Reasoning(content="not"),
        Token(content="yes"),
        _delta("1", ""),
        _delta("2", "["),
        _delta("1", "{}"),
        _delta("2", "]"),
        Token(content="!"),
    ):
        step.add(piece)
    assert step.pieces() == [
        Reasoning(content="why not"),
        Token(content="yes"),
        _delta("1", "{}"),
        _delta("2", "[]"),
        Token(content="!"),
    ]
    assert step.text == "yes!"


def test_unfinished_step_shows_a_call_without_arguments() -> None:
    """A call that has only been named is open, too."""
    step = UnfinishedStep()
    step.add(_delta("1", ""))
    assert step.pieces() == [_delta("1", "")]


def test_unfinished_step_shows_long_text_in_several_pieces() -> None:
    """However much a step has shown, no piece outgrows a batch."""
    step = UnfinishedStep()
    step.add(Token(content="x" * (2 * MAX_PIECE_CHARACTERS + 1)))
    shown = step.pieces()
    assert [len(piece.content) for piece in shown if isinstance(piece, Token)] == [32_000, 32_000, 1]


def test_unfinished_step_cleared_shows_nothing() -> None:
    """A committed or discarded step leaves neither text nor calls behind; the next one starts afresh."""
    step = UnfinishedStep()
    step.add(Token(content="a"))
    step.add(_delta("1", "{"))
    step.clear()
    assert step.pieces() == []
    assert step.text == ""
    step.add(_delta("1", "["))
    assert step.pieces() == [_delta("1", "[")]
