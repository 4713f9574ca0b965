"""A long answer in many small pieces."""

from typing import NoReturn

import pytest

from common.model.events import Token
from worker.providers.base import ProviderError
from worker.run.pieces import UnfinishedStep
from worker.run.turn import MAX_ANSWER_CHARACTERS, Text


class Unaddable(str):
    """A piece that must be joined with all others at once: adding it to what came before copies that each time."""

    def __add__(self, other: object) -> NoReturn:
        raise AssertionError("copies the text so far")

    __radd__ = __add__


def test_pieces_of_an_answer_are_never_added_up_one_by_one() -> None:
    """An answer of 400 KB in 80,000 pieces is put together once, when somebody asks for it."""
    text = Text()
    for _ in range(80_000):
        text.add(Unaddable("piece"))
    assert len(text) == 400_000
    assert text.joined == "piece" * 80_000


def test_pieces_of_an_unfinished_step_are_never_added_up_one_by_one() -> None:
    """Nor is what the sink keeps to show again."""
    unfinished = UnfinishedStep()
    for _ in range(80_000):
        unfinished.add(Token(content=Unaddable("piece")))
    assert unfinished.text == "piece" * 80_000


def test_text_is_bounded() -> None:
    """The piece that makes it too long is refused in words that a user understands; up to there all is kept."""
    text = Text()
    text.add("x" * MAX_ANSWER_CHARACTERS)
    with pytest.raises(ProviderError, match="the answer is longer than 5,000,000 characters") as refused:
        text.add("x")
    assert not refused.value.retryable
