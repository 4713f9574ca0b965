"""Two servers, measured by turns, so that both meet the same noise."""

from collections.abc import Awaitable, Callable
from statistics import median
from typing import Generic, NamedTuple, TypeVar

S = TypeVar("S")
T = TypeVar("T")


class Rounds(NamedTuple, Generic[T]):
    """The rounds of one measurement."""

    ours: list[T]
    theirs: list[T]

    def medians(self, figure: Callable[[T], float]) -> tuple[float, float]:
        """Ours, theirs."""
        return median(map(figure, self.ours)), median(map(figure, self.theirs))


async def by_turns(rounds: int, ours: S, theirs: S, measure: Callable[[int, S], Awaitable[T]]) -> Rounds[T]:
    """What `measure` finds; it is told the number of the round, from 1, and whose turn it is."""
    found = Rounds[T]([], [])
    for number in range(1, rounds + 1):
        found.ours.append(await measure(number, ours))
        found.theirs.append(await measure(number, theirs))
    return found
