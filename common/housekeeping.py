"""One round of housekeeping: what retention lets go, in all workspaces, in batches that nobody has to wait for."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from uuid import UUID

import structlog

from common.config import Settings
from common.queue import Bell
from common.redis import REDIS_DOWN
from common.store.database import DATABASE_DOWN, Connection, Pool, workspace_transaction
from common.store.housekeeping import (
    BEFORE_ALL,
    Outdated,
    delete_document,
    delete_old_keys,
    delete_old_tickets,
    delete_piece_of_conversation,
    find_deleted_conversations,
    find_deleted_documents,
    find_runs_with_old_details,
    find_workspaces_of_old_keys,
    find_workspaces_of_old_tickets,
    remove_run_details,
)

_KINDS = ("idempotency_keys", "tickets", "conversations", "documents", "run_details", "bells")
_BATCH = 100
_PIECE = 500
_LOCK_S = 1.0
_log = structlog.get_logger(__name__)

Find = Callable[[Pool, int, Outdated, int], Awaitable[list[Outdated]]]
FindWorkspaces = Callable[[Pool, int], Awaitable[list[UUID]]]


async def keep_house(pool: Pool, bell: Bell, settings: Settings, limit_s: float) -> dict[str, int]:
    """Removes what is outdated, for about `limit_s` seconds at most; how much of what. The rest comes up again.

    Several at once are safe, and so is an end in the middle. Raises one of DATABASE_DOWN when Postgres is away.
    """
    return await _Round(pool, bell, settings, limit_s).run()


class _Round:
    def __init__(self, pool: Pool, bell: Bell, settings: Settings, limit_s: float) -> None:
        self._pool = pool
        self._bell = bell
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._until = self._loop.time() + limit_s
        self._removed = dict.fromkeys(_KINDS, 0)

    async def run(self) -> dict[str, int]:
        await self._of_workspaces("idempotency_keys", find_workspaces_of_old_keys, delete_old_keys)
        await self._of_workspaces("tickets", find_workspaces_of_old_tickets, delete_old_tickets)
        if days := self._settings.retention_deleted_days:
            async for found in self._found(find_deleted_conversations, days):
                for one in found:
                    await self._batch("conversations", partial(self._delete_conversation, one, days))
            async for found in self._found(find_deleted_documents, days):
                for one in found:
                    await self._batch("documents", partial(self._delete_document, one, days))
        if days := self._settings.retention_run_details_days:
            async for found in self._found(find_runs_with_old_details, days):
                for workspace_id, run_ids in _by_workspace(found).items():
                    await self._batch("run_details", partial(self._remove_details, workspace_id, run_ids))
        try:
            self._removed["bells"] += await self._bell.forget_old()
        except REDIS_DOWN as error:
            _log.info("housekeeping_postponed", what="bells", error=type(error).__name__)
        return dict(self._removed)

    async def _found(self, find: Find, days: int) -> AsyncIterator[list[Outdated]]:
        """All that `find` lists, once: what cannot be removed holds up nothing behind it."""
        last = BEFORE_ALL
        while self._has_time() and (found := await find(self._pool, days, last, _BATCH)):
            yield found
            last = found[-1]

    async def _of_workspaces(
        self, what: str, find: FindWorkspaces, remove: Callable[[Connection, int], Awaitable[int]]
    ) -> None:
        """As long as there is something that can be removed."""
        before = -1
        while self._has_time() and before < self._removed[what]:
            before = self._removed[what]
            for workspace_id in await find(self._pool, _PIECE):
                await self._batch(what, partial(self._remove_some, workspace_id, remove))

    async def _batch(self, what: str, remove: Callable[[], Awaitable[int]]) -> None:
        """Removes something, then leaves Postgres alone for as long as that took."""
        if not self._has_time():
            return
        began = self._loop.time()
        try:
            self._removed[what] += await remove()
        except DATABASE_DOWN as error:
            _log.info("housekeeping_postponed", what=what, error=type(error).__name__)
        except Exception:
            _log.exception("housekeeping_broke", what=what)
        await self._pause_since(began)

    async def _pause_since(self, began: float) -> None:
        await asyncio.sleep(self._loop.time() - began)

    async def _remove_some(self, workspace_id: UUID, remove: Callable[[Connection, int], Awaitable[int]]) -> int:
        async with workspace_transaction(self._pool, workspace_id, lock_timeout_s=_LOCK_S) as connection:
            return await remove(connection, _PIECE)

    async def _delete_conversation(self, one: Outdated, days: int) -> int:
        left = "more"
        while left == "more" and self._has_time():
            began = self._loop.time()
            async with workspace_transaction(self._pool, one.workspace_id, lock_timeout_s=_LOCK_S) as connection:
                left = await delete_piece_of_conversation(connection, one.id, days, _PIECE)
            if left == "more":
                await self._pause_since(began)
        return int(left == "gone")

    async def _delete_document(self, one: Outdated, days: int) -> int:
        async with workspace_transaction(self._pool, one.workspace_id, lock_timeout_s=_LOCK_S) as connection:
            return int(await delete_document(connection, one.id, days))

    async def _remove_details(self, workspace_id: UUID, run_ids: list[UUID]) -> int:
        async with workspace_transaction(self._pool, workspace_id, lock_timeout_s=_LOCK_S) as connection:
            return await remove_run_details(connection, run_ids)

    def _has_time(self) -> bool:
        return self._loop.time() < self._until


def _by_workspace(found: list[Outdated]) -> dict[UUID, list[UUID]]:
    groups: defaultdict[UUID, list[UUID]] = defaultdict(list)
    for one in found:
        groups[one.workspace_id].append(one.id)
    return groups
