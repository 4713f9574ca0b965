"""Lists in pieces. A cursor is opaque, and good only for the list (and workspace, and filters) that gave it."""

import base64
import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, NamedTuple, TypeVar
from uuid import UUID

import msgspec
from litestar.params import QueryParameter
from msgspec import Meta

from common.errors import ErrorCode, ThroughlineError
from common.model.answers import Page

T = TypeVar("T")
Position = TypeVar("Position", bound=tuple[Any, ...])

DEFAULT_LIMIT = 50
Limit = Annotated[int, QueryParameter(ge=1, le=100, description="How many at most.")]
CursorText = Annotated[
    str | None,
    QueryParameter(
        name="cursor",
        max_length=400,
        description="`nextCursor` of the piece before; opaque, and good for this list with these filters only.",
    ),
]


class NewestFirst(NamedTuple):
    """The position in a list by time of creation."""

    created_at: Annotated[datetime, Meta(tz=True)]
    id: UUID


class ListCursor:
    """Reads and writes the cursors of one list, of all workspaces where none is named; `filters` are whatever else
    decides what is in it."""

    def __init__(self, name: str, workspace_id: UUID | None, *filters: object) -> None:
        scope = repr((name, workspace_id, filters)).encode()
        self._scope = hashlib.blake2b(scope, digest_size=8).digest()

    def read(self, text: str | None, kind: type[Position]) -> Position | None:
        """The position in `text`. Raises `invalid_cursor` for anything that `write` did not make for this list."""
        if text is None:
            return None
        try:
            data = base64.b64decode(text.encode() + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
            decoded: tuple[bytes, Position] = msgspec.msgpack.decode(
                data,
                type=tuple[bytes, kind],  # type: ignore[valid-type]
            )
        except (ValueError, msgspec.MsgspecError):
            raise _invalid() from None
        scope, position = decoded
        in_utc = all(part.utcoffset() == timedelta() for part in position if isinstance(part, datetime))
        if scope != self._scope or not in_utc or self.write(position) != text:
            raise _invalid()
        return position

    def write(self, position: tuple[Any, ...]) -> str:
        """The cursor that leads past `position`."""
        data = msgspec.msgpack.encode((self._scope, position))
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    def page(self, found: Sequence[T], limit: int, position_of: Callable[[T], tuple[Any, ...]]) -> Page[T]:
        """A page of `found`, which was asked for with one more than `limit`."""
        data = list(found[:limit])
        more = len(found) > limit
        return Page(data=data, next_cursor=self.write(position_of(data[-1])) if more else None)


def _invalid() -> ThroughlineError:
    return ThroughlineError(ErrorCode.INVALID_CURSOR, "cursor: not one that this list has given")
