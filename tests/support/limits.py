"""An API with limits, and what they did."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

import httpx
import msgspec
import pytest

from common import limits
from common.config import Settings
from common.store.database import Pool, workspace_transaction
from common.store.workspace_limits import upsert_limits
from tests.support.api_client import LiveApi, live_api, offer


@asynccontextmanager
async def limited_api(settings: Settings, pool: Pool, **limit: int) -> AsyncIterator[LiveApi]:
    """A live API whose default limits are these, named as in `Limits`."""
    await offer(pool)
    changed: dict[str, Any] = {f"limit_{name}": value for name, value in limit.items()}
    chosen = msgspec.structs.replace(settings, default_provider="echo", default_model="echo", **changed)
    async with live_api(chosen) as api:
        yield api


def forget_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits, and what was spent, are read each time that they are needed."""
    monkeypatch.setattr(limits, "FRESH_S", 0.0)
    monkeypatch.setattr(limits, "STALE_S", 0.0)


async def set_limits(pool: Pool, workspace_id: UUID, **limit: int) -> None:
    """What an operator sets for one workspace."""
    async with workspace_transaction(pool, workspace_id) as connection:
        await upsert_limits(connection, limit)


def retry_after_of(answer: httpx.Response) -> int:
    """The seconds that a refusal names; every one of 429 names some."""
    assert answer.status_code == 429, answer.text
    seconds = int(answer.headers["retry-after"])
    assert seconds >= 1
    return seconds
