"""What a guard is, how it is broken, and who must notice."""

from typing import NamedTuple


class Change(NamedTuple):
    """In the file at `path`, `old` becomes `new`; `old` must be there exactly once."""

    path: str
    old: str
    new: str


class Breakage(NamedTuple):
    """`tests` are pytest's arguments; the cheap ones come first."""

    name: str
    guard: str
    broken: str
    changes: tuple[Change, ...]
    tests: tuple[str, ...]
