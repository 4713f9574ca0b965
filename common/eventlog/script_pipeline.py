"""Calls of one script from many tasks, sent together: what comes during a round trip goes with the next."""

import asyncio
from collections.abc import Sequence
from hashlib import sha1
from typing import Any, cast

import redis.asyncio
from hiredis import pack_command
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError, NoScriptError, ResponseError

from common.redis import REDIS_DOWN, REPLY_TIMEOUT_S

_MAX_CALLS = 128
_Command = tuple[str | bytes | int, ...]
_Reply = int | bytes | ResponseError


class ScriptPipeline:
    """Runs one script that answers with an integer, and whose repetition does no harm.

    It keeps one connection of the client's pool and takes redis-py's timer per reply off it: one limit covers
    a whole round trip. Closing the client closes it.
    """

    def __init__(self, redis: redis.asyncio.Redis, source: str) -> None:
        self._pool = redis.connection_pool
        self._source = source
        self._sha = sha1(source.encode(), usedforsecurity=False).hexdigest()
        self._waiting: list[tuple[_Command, asyncio.Future[int]]] = []
        self._connection: AbstractConnection | None = None
        self._sending: asyncio.Task[None] | None = None

    async def call(self, keys: Sequence[str], arguments: Sequence[bytes | int]) -> int:
        """The script's answer. Raises one of REDIS_DOWN; the script may have run all the same.

        A caller that is cancelled before its call was sent withdraws it; the others do not notice.
        """
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._waiting.append((("EVALSHA", self._sha, len(keys), *keys, *arguments), answer))
        if self._sending is None:
            self._sending = asyncio.create_task(self._send_waiting())
        return await answer

    async def _send_waiting(self) -> None:
        sent: list[tuple[_Command, asyncio.Future[int]]] = []
        try:
            while self._waiting:
                sent, self._waiting = self._waiting[:_MAX_CALLS], self._waiting[_MAX_CALLS:]
                sent = [call for call in sent if not call[1].done()]
                if sent:
                    _answer(sent, await self._round_trip([command for command, _ in sent]))
        finally:
            # Only a cancellation (the loop is shutting down) or a bug leaves somebody without an answer.
            for _, answer in (*sent, *self._waiting):
                answer.cancel()
            self._waiting.clear()
            self._sending = None

    async def _round_trip(self, commands: list[_Command]) -> list[_Reply] | Exception:
        try:
            try:
                return await self._exchange(commands)
            except ConnectionError:
                # A connection that was closed while it was idle is noticed only now.
                return await self._exchange(commands)
        except REDIS_DOWN as error:
            return error

    async def _exchange(self, commands: list[_Command]) -> list[_Reply]:
        try:
            async with asyncio.timeout(REPLY_TIMEOUT_S):
                if self._connection is None:
                    self._connection = await self._pool.get_connection()
                    self._connection.socket_timeout = None
                replies = await _ask(self._connection, commands)
                if any(isinstance(reply, NoScriptError) for reply in replies):
                    # Redis is new or was flushed: none of them has run, or those that did will say so again.
                    await _ask(self._connection, [("SCRIPT", "LOAD", self._source)])
                    replies = await _ask(self._connection, commands)
                return replies
        except BaseException:
            if self._connection is not None:
                await self._connection.disconnect(nowait=True)
            raise


async def _ask(connection: AbstractConnection, commands: list[_Command]) -> list[_Reply]:
    await connection.send_packed_command([pack_command(cast(Any, command)) for command in commands])
    replies: list[_Reply] = []
    for _ in commands:
        try:
            replies.append(await connection.read_response())
        except ResponseError as error:
            replies.append(error)
    return replies


def _answer(calls: list[tuple[_Command, asyncio.Future[int]]], replies: list[_Reply] | Exception) -> None:
    for index, (_, answer) in enumerate(calls):
        if answer.done():
            continue
        reply = replies if isinstance(replies, Exception) else replies[index]
        if isinstance(reply, int):
            answer.set_result(reply)
        else:
            # Each caller raises an exception of its own: a shared one would gather everybody's traceback.
            failure = ConnectionError(f"append failed: {reply!r}")
            failure.__cause__ = reply if isinstance(reply, Exception) else None
            answer.set_exception(failure)
