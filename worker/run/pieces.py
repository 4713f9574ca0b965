"""The pieces in which a step arrives: text, reasoning, arguments of calls.

They are joined before they are sent, and gathered, so that an unfinished step can be shown again.
"""

from collections import deque

import msgspec

from common.model.events import Event, Reasoning, Token, ToolCallDelta

Piece = Token | Reasoning | ToolCallDelta

MAX_PIECE_CHARACTERS = 32_000
"""Joining stops here, so that even a piece whose JSON escapes everything leaves room in a batch."""


def take_joined(pending: deque[Event]) -> Event:
    """Removes the first event and the pieces right after it that continue it; returns them as one event."""
    first = pending.popleft()
    if not isinstance(first, Piece):
        return first
    texts = [text_of(first)]
    size = len(texts[0])
    while pending and size < MAX_PIECE_CHARACTERS:
        following = pending[0]
        if not isinstance(following, Piece) or not _continues(first, following):
            break
        pending.popleft()
        texts.append(text_of(following))
        size += len(texts[-1])
    return first if len(texts) == 1 else _with_text(first, "".join(texts))


def compact(pending: deque[Event]) -> int:
    """Gathers in place what waits, as far as its fold allows; returns how many characters its pieces have."""
    characters = 0
    gathered: list[Event] = []
    shown = UnfinishedStep()
    for event in pending:
        if isinstance(event, Piece):
            shown.add(event)
            characters += len(text_of(event))
        else:
            gathered += (*shown.pieces(), event)
            shown.clear()
    gathered += shown.pieces()
    pending.clear()
    pending.extend(gathered)
    return characters


class UnfinishedStep:
    """What the step that is not committed yet has shown so far."""

    def __init__(self) -> None:
        self._parts: list[tuple[Piece, list[str]]] = []
        self._calls: dict[str, list[str]] = {}

    def add(self, piece: Piece) -> None:
        """Text and reasoning keep their turns; the deltas of a call are gathered where the call began."""
        texts = self._texts_continued_by(piece)
        if texts is None:
            texts = []
            self._parts.append((piece, texts))
            if isinstance(piece, ToolCallDelta):
                self._calls[piece.tool_call_id] = texts
        texts.append(text_of(piece))

    def clear(self) -> None:
        """The step was committed or discarded."""
        self._parts.clear()
        self._calls.clear()

    @property
    def text(self) -> str:
        """The answer's text so far, without reasoning."""
        return "".join("".join(texts) for first, texts in self._parts if isinstance(first, Token))

    def pieces(self) -> list[Piece]:
        """The fewest pieces that show all of it again, none much longer than MAX_PIECE_CHARACTERS."""
        return [_with_text(first, part) for first, texts in self._parts for part in _cut("".join(texts))]

    def _texts_continued_by(self, piece: Piece) -> list[str] | None:
        # By its own type first: for a struct of any other, isinstance() takes longer than all the rest of this.
        if isinstance(piece, Token | Reasoning):
            if self._parts and type(self._parts[-1][0]) is type(piece):
                return self._parts[-1][1]
            return None
        return self._calls.get(piece.tool_call_id)


def text_of(piece: Piece) -> str:
    """The piece's text: of the answer, the reasoning, or the JSON arguments."""
    return piece.content if isinstance(piece, Token | Reasoning) else piece.delta


def _continues(first: Piece, following: Piece) -> bool:
    if isinstance(first, ToolCallDelta) and isinstance(following, ToolCallDelta):
        return first.tool_call_id == following.tool_call_id
    return type(first) is type(following)


def _with_text(piece: Piece, text: str) -> Piece:
    if isinstance(piece, ToolCallDelta):
        return msgspec.structs.replace(piece, delta=text)
    return msgspec.structs.replace(piece, content=text)


def _cut(text: str) -> list[str]:
    return [text[i : i + MAX_PIECE_CHARACTERS] for i in range(0, len(text), MAX_PIECE_CHARACTERS)] or [""]
