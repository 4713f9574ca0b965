"""A connection that redis-py has opened, read without a task: what Redis says is handed on in the moment it comes."""

import asyncio
from collections.abc import Callable
from typing import Any, Self, cast

import hiredis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError, InvalidResponse, ResponseError

_REPLIES_PER_TURN = 64


class Receiver(asyncio.Protocol):
    """Takes the place of redis-py's reader, which needs a coroutine and a look at the clock for each reply.

    `on_reply` gets each reply that is no error. `lost` ends with one of REDIS_DOWN, or with what `on_reply` raised;
    then nothing more comes.
    """

    def __init__(self, transport: asyncio.Transport, on_reply: Callable[[Any], None]) -> None:
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport = transport
        self._on_reply = on_reply
        self._reader = hiredis.Reader(protocolError=InvalidResponse, replyError=ResponseError)
        self._is_paused = False

    @classmethod
    def of(cls, connection: AbstractConnection, on_reply: Callable[[Any], None]) -> Self:
        """Reads `connection` from now on. It is connected, and has no answer on its way."""
        # redis-py shows neither of the two. Nothing lies between them and its parser: all that came was an answer.
        transport = cast(asyncio.Transport, connection._writer.transport)  # type: ignore[union-attr]
        receiver = cls(transport, on_reply)
        transport.set_protocol(receiver)
        return receiver

    def send(self, *command: str | bytes) -> None:
        """Never waits: who is not read is found by its silence."""
        self._transport.write(hiredis.pack_command(cast(Any, command)))

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        self._hand_on()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(ConnectionError(f"Connection lost: {exc or 'closed by the server'}"))

    def _hand_on(self) -> None:
        if self.lost.done():
            return
        # What is in the buffer already comes without a pause, and the clients' queues are short.
        try:
            for _ in range(_REPLIES_PER_TURN):
                reply = self._reader.gets()
                if reply is False:
                    self._pause(False)
                    return
                if isinstance(reply, Exception):
                    raise reply
                self._on_reply(reply)
        except Exception as error:
            self._end(error)
        else:
            self._pause(True)
            asyncio.get_running_loop().call_soon(self._hand_on)

    def _pause(self, pauses: bool) -> None:
        if pauses != self._is_paused and not self._transport.is_closing():
            self._is_paused = pauses
            (self._transport.pause_reading if pauses else self._transport.resume_reading)()

    def _end(self, error: Exception) -> None:
        if not self.lost.done():
            self.lost.set_exception(error)
        self._transport.close()
