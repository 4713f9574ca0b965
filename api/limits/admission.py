"""What is let in: requests, open connections and new runs, within the limits of their workspace and user."""

from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from uuid import UUID

from litestar.types import Scope
from redis.asyncio import Redis

from api.limits.requests import RequestCounter
from api.limits.seats import Kind, Seats
from common.config import Settings
from common.errors import ErrorCode, ThroughlineError
from common.limits import LimitBook, TokenBudget, midnight
from common.store.database import Connection, Pool
from common.store.runs import count_not_begun, lock_line

_AGAIN_S = 5
_NEAR = 100
"""So many places before the end of a line, new runs are counted one after the other: more than there are at once."""


class Admission:
    """Refuses with 429 and the time after which the same may be asked again."""

    def __init__(self, settings: Settings, pool: Pool, redis: Redis, seats: Seats) -> None:
        self._book = LimitBook(settings, pool)
        self._budget = TokenBudget()
        self._requests = RequestCounter(redis)
        self._seats = seats

    async def count_request(self, workspace_id: UUID, user: str) -> None:
        """Raises `rate_limited` for one that comes too soon."""
        limits = await self._book.read(workspace_id)
        wait_s = await self._requests.take(workspace_id, user, limits)
        if wait_s > 0:
            message = "Too many requests at once. Try again a little later."
            raise ThroughlineError(ErrorCode.RATE_LIMITED, message, retry_after_s=wait_s)

    def take_seat(self, scope: Scope, kind: Kind, workspace_id: UUID, user: str) -> None:
        """Lets the request keep a connection open until it ends. Raises `too_many_connections`."""
        limits = self._book.known(workspace_id)
        most, user_most = (
            (limits.streams, limits.user_streams) if kind == "stream" else (limits.sockets, limits.user_sockets)
        )
        limit = self._seats.take(scope, kind, workspace_id, user, most, user_most)
        if limit:
            message = f"{limit} {kind}s are open already."
            raise ThroughlineError(ErrorCode.TOO_MANY_CONNECTIONS, message, retry_after_s=_AGAIN_S)

    async def admit_run(self, connection: Connection, workspace_id: UUID, user: str) -> None:
        """Inside the transaction that is to insert it. Raises `budget_exceeded` or `too_many_runs`."""
        limits = self._book.known(workspace_id)
        name = await self._budget.exceeded(limits, workspace_id, user, lambda: nullcontext(connection))
        if name is not None:
            most = getattr(limits, name)
            raise ThroughlineError(
                ErrorCode.BUDGET_EXCEEDED,
                f"{whose(name)} tokens of today are spent: {most:,} until midnight, UTC.",
                {"limit": name, "most": str(most)},
                retry_after_s=_until_midnight(datetime.now(UTC)).total_seconds(),
            )
        await self._admit_to_line(connection, limits.queued_runs, limits.user_queued_runs, user)

    async def _admit_to_line(self, connection: Connection, most: int, user_most: int, user: str) -> None:
        if not most and not user_most:
            return
        line = await count_not_begun(connection, user, most, user_most)
        if any(limit and limit - _NEAR <= count < limit for limit, count in zip((most, user_most), line, strict=True)):
            await lock_line(connection)
            line = await count_not_begun(connection, user, most, user_most)
        for name, limit, count in (("queued_runs", most, line[0]), ("user_queued_runs", user_most, line[1])):
            if limit and count >= limit:
                raise ThroughlineError(
                    ErrorCode.TOO_MANY_RUNS,
                    f"{whose(name)} runs that have not begun are {limit:,} already. Try again when some have.",
                    {"limit": name, "most": str(limit)},
                    retry_after_s=_AGAIN_S,
                )


def whose(limit: str) -> str:
    """Begins a sentence about what a limit counts."""
    return "Your" if limit.startswith("user_") else "The workspace's"


def _until_midnight(now: datetime) -> timedelta:
    return midnight(now.date() + timedelta(days=1)) - now
