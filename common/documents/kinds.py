"""What a document is made of: the kinds that there are, and what an update of each may hold."""

from enum import IntEnum
from typing import NamedTuple


class Content(IntEnum):
    """What an item of an update is, as Yjs numbers it (`src/structs/Item.js`, `contentRefs`)."""

    DELETED = 1
    STRING = 4
    SKIP = 10


class Kind(NamedTuple):
    """`root` is the one shared type that clients may use, `contents` what they may put there."""

    name: str
    root: str
    contents: frozenset[int]


MARKDOWN = Kind("markdown", "content", frozenset(Content))
"""Markdown in one `Y.Text`."""

KINDS = {kind.name: kind for kind in (MARKDOWN,)}
