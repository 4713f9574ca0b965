"""Streams and sockets that are open in this process: each is a seat, held until its request ends."""

from typing import Any, Literal, cast
from uuid import UUID

from litestar.types import ASGIApp, Receive, Scope, Send

_HELD = "throughline.seats"

Kind = Literal["stream", "socket"]
_Key = tuple[Kind, UUID, str | None]


class Seats:
    """Counted here alone: what an open connection costs, it costs its process."""

    def __init__(self) -> None:
        self._taken: dict[_Key, int] = {}

    def take(self, scope: Scope, kind: Kind, workspace_id: UUID, user: str, most: int, user_most: int) -> int:
        """0 for a seat that is held now; else the limit that is reached, and no seat."""
        keys: list[tuple[_Key, int]] = [((kind, workspace_id, None), most), ((kind, workspace_id, user), user_most)]
        for key, limit in keys:
            if limit and self._taken.get(key, 0) >= limit:
                return limit
        for key, _ in keys:
            self._taken[key] = self._taken.get(key, 0) + 1
        cast(dict[str, Any], scope).setdefault(_HELD, []).extend(key for key, _ in keys)
        return 0

    def middleware(self, app: ASGIApp) -> ASGIApp:
        """Frees what a request holds, however it ends."""

        async def seated(scope: Scope, receive: Receive, send: Send) -> None:
            try:
                await app(scope, receive, send)
            finally:
                for key in cast(dict[str, Any], scope).pop(_HELD, ()):
                    self._free(key)

        return seated

    def _free(self, key: _Key) -> None:
        self._taken[key] -= 1
        if not self._taken[key]:
            del self._taken[key]
