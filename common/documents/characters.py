"""Characters that Yjs counts twice. Its clocks count UTF-16 units, so an edit may come between the two halves of one
character: Yjs then makes U+FFFD of both, and the library here something else, so that the copies differ for good.
"""

import re
from array import array
from bisect import bisect_left

_WIDE = re.compile("[\U00010000-\U0010ffff]")


def wide_units(text: str) -> list[int]:
    """Where in `text`, in UTF-16 units, the characters begin that take two."""
    return [match.start() + before for before, match in enumerate(_WIDE.finditer(text))]


class WideCharacters:
    """Which clocks of a document's clients are the first halves of characters."""

    def __init__(self) -> None:
        self._firsts: dict[int, array[int]] = {}

    def note(self, client: int, clocks: list[int]) -> None:
        """Notes first halves. A client's clocks come in order; what is known already may come again."""
        known = self._firsts.setdefault(client, array("Q"))
        last = known[-1] if known else -1
        known.extend(clock for clock in clocks if clock > last)

    def has_cut(self, client: int, clock: int) -> bool:
        """Whether an edit just before this clock would be within a character."""
        known = self._firsts.get(client)
        if not known:
            return False
        place = bisect_left(known, clock - 1)
        return place < len(known) and known[place] == clock - 1
