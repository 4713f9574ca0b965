"""The limits of workspaces as this process knows them: the settings, and what operators have set for one workspace."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, date, datetime
from uuid import UUID

import msgspec
import structlog

from common.config import Settings
from common.model.limits import Limits
from common.store.database import Connection, Pool, workspace_transaction
from common.store.model_calls import sum_tokens
from common.store.workspace_limits import select_limits

FRESH_S = 5.0
"""What was read is asked again after this; until then a change is not noticed."""
STALE_S = 10.0
"""Nobody is judged by what is older than this, unless Postgres does not answer."""

_PATIENCE_S = 0.5
_MOST_KEPT = 10_000
_NEVER = float("-inf")

_log = structlog.get_logger(__name__)


def default_limits(settings: Settings) -> Limits:
    """Those of a workspace for which nothing else is set."""
    names = Limits.__struct_fields__
    return Limits(**{name: getattr(settings, f"limit_{name}") for name in names})


class _Page:
    """One workspace's."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.read_at = _NEVER
        self.reading: asyncio.Task[None] | None = None


class LimitBook:
    """Reads each workspace's own limits, and remembers them for some seconds.

    Never raises, and holds up nobody for long: while Postgres does not answer, what was known last counts.
    """

    def __init__(self, settings: Settings, pool: Pool) -> None:
        self._pool = pool
        self._defaults = default_limits(settings)
        self._pages: dict[UUID, _Page] = {}

    def known(self, workspace_id: UUID) -> Limits:
        """As they were last read; the defaults when they never were."""
        page = self._pages.get(workspace_id)
        return self._defaults if page is None else page.limits

    async def read(self, workspace_id: UUID) -> Limits:
        """As they are, or were at most STALE_S ago."""
        page = self._pages.get(workspace_id)
        if page is None:
            if len(self._pages) >= _MOST_KEPT:
                self._pages.clear()
            page = self._pages[workspace_id] = _Page(self._defaults)
        age = time.monotonic() - page.read_at
        if age >= FRESH_S and page.reading is None:
            page.reading = asyncio.create_task(self._turn(workspace_id, page), name="limits of a workspace")
        if age >= STALE_S and page.reading is not None:
            await asyncio.wait({page.reading}, timeout=_PATIENCE_S)
        return page.limits

    async def _turn(self, workspace_id: UUID, page: _Page) -> None:
        try:
            async with workspace_transaction(self._pool, workspace_id) as connection:
                own = await select_limits(connection)
            known = {name: value for name, value in own.items() if name in Limits.__struct_fields__}
            page.limits = msgspec.structs.replace(self._defaults, **known)
        except Exception as error:
            # A limit that cannot be read must not become an outage of its own.
            _log.warning("limits_not_read", workspace_id=str(workspace_id), error=repr(error))
        finally:
            page.read_at = time.monotonic()
            page.reading = None


class _Spent:
    """Tokens of one day."""

    def __init__(self, day: date) -> None:
        self.day = day
        self.tokens = 0
        self.read_at = _NEVER
        self.is_reading = False


class TokenBudget:
    """What workspaces and users have spent today (UTC), as known some seconds ago."""

    def __init__(self) -> None:
        self._spent: dict[tuple[UUID, str | None], _Spent] = {}

    async def exceeded(
        self,
        limits: Limits,
        workspace_id: UUID,
        user: str,
        connect: Callable[[], AbstractAsyncContextManager[Connection]],
    ) -> str | None:
        """The name of the limit that is reached; asks the database only where there is one, and every FRESH_S.

        `connect` opens a transaction of the workspace, or gives one that is open.
        """
        for name, whose, most in (
            ("tokens_per_day", None, limits.tokens_per_day),
            ("user_tokens_per_day", user, limits.user_tokens_per_day),
        ):
            if most and await self._tokens(workspace_id, whose, connect) >= most:
                return name
        return None

    async def _tokens(
        self, workspace_id: UUID, user: str | None, connect: Callable[[], AbstractAsyncContextManager[Connection]]
    ) -> int:
        spent = self._today(workspace_id, user)
        if time.monotonic() - spent.read_at < FRESH_S or (spent.is_reading and spent.read_at != _NEVER):
            return spent.tokens
        spent.is_reading = True
        try:
            async with connect() as connection:
                spent.tokens = await sum_tokens(connection, midnight(spent.day), user)
            spent.read_at = time.monotonic()
        finally:
            spent.is_reading = False
        return spent.tokens

    def _today(self, workspace_id: UUID, user: str | None) -> _Spent:
        today = datetime.now(UTC).date()
        spent = self._spent.get((workspace_id, user))
        if spent is None or spent.day != today:
            if len(self._spent) >= _MOST_KEPT:
                self._spent.clear()
            spent = self._spent[workspace_id, user] = _Spent(today)
        return spent


def midnight(day: date) -> datetime:
    """When a day begins, in UTC."""
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
