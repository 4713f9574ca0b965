"""Tools that work on our own database: what they are given besides what every tool is, and how a call is run."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from redis.asyncio import Redis

from common.store.database import DATABASE_DOWN, Connection
from worker.tools.base import Access, Tool, ToolContext
from worker.tools.execute import ToolOutcome, failed, outcome_of

Announcement = Callable[[Redis], Awaitable[None]]
"""Tells others of what is committed, over Redis. It may be lost."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadContext(ToolContext):
    """For a tool that reads the run's workspace over `connection`, which is its own until it returns.

    While Postgres is out of reach, the call waits for it.
    """

    connection: Connection
    access: ClassVar[Access] = Access.READS


@dataclass(frozen=True, kw_only=True, slots=True)
class TransactionContext(ReadContext):
    """What a tool does over `connection` is committed with its result, or not at all.

    So it happens exactly once, whatever crashes. `connection` sees the run's workspace alone, and is the tool's until
    it returns; when the tool raises, what it did is undone. What is appended to `afterwards` is run once all is
    committed, and may be lost in a crash: it can announce something, and no more.
    """

    afterwards: list[Announcement]
    access: ClassVar[Access] = Access.WRITES


async def execute_within(tool: Tool, arguments: dict[str, Any], context: ReadContext) -> ToolOutcome:
    """Runs a call within its caller's transaction, which is rolled back to here when the tool fails.

    Raises one of DATABASE_DOWN, which says nothing about the call: its transaction is to be tried again, whose own time
    limit is the tool's.
    """
    await context.connection.execute("savepoint tool")
    try:
        return outcome_of(await tool.call(tool.validate(arguments), context), is_error=False)
    except DATABASE_DOWN:
        raise
    except Exception as error:
        await context.connection.execute("rollback to savepoint tool")
        return failed(tool, context, error)
