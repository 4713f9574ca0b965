"""What a provider wants back with its own message: opaque items (signed or encrypted reasoning) in their places.

The history keeps a message's text and calls; only the opaque items, and the order of all, are kept beside them.
"""

from typing import Any, Literal

import msgspec


class Piece(msgspec.Struct, frozen=True, omit_defaults=True):
    """One part of a message: `text` is a number of characters, `call` an index, `opaque` the provider's own JSON."""

    text: int | None = None
    call: int | None = None
    opaque: dict[str, Any] | None = None


class ReplayRecorder:
    """Notes the parts of an answer as they stream."""

    def __init__(self) -> None:
        self._pieces: list[tuple[Literal["text", "call", "opaque"], Any]] = []

    def text(self, characters: int) -> None:
        """More text; neighbouring pieces are one."""
        if self._pieces and self._pieces[-1][0] == "text":
            characters += self._pieces.pop()[1]
        self._pieces.append(("text", characters))

    def call(self, index: int) -> None:
        """The call `index` begins."""
        self._pieces.append(("call", index))

    def opaque(self, item: dict[str, Any]) -> None:
        """An item that must come back unchanged; it may still be filled in until the stream ends."""
        self._pieces.append(("opaque", item))

    def data(self) -> list[dict[str, Any]] | None:
        """The provider data of `Finish`; None where a message says everything without it."""
        if not any(kind == "opaque" for kind, _ in self._pieces):
            return None
        return [{kind: value} for kind, value in self._pieces]


def read_replay(data: Any, content: str, calls: int) -> list[Piece] | None:
    """The parts of a message; None when `data` is none of ours or does not fit the message, say after an edit."""
    if data is None:
        return None
    try:
        pieces = msgspec.convert(data, list[Piece])
    except msgspec.ValidationError:
        return None
    characters = sum(piece.text for piece in pieces if piece.text is not None)
    indexes = [piece.call for piece in pieces if piece.call is not None]
    if characters != len(content) or indexes != list(range(calls)):
        return None
    # Thoughts that led to nothing, cut off at a length stop: both services refuse them at a message's end.
    while pieces and pieces[-1].opaque is not None:
        pieces.pop()
    return pieces
