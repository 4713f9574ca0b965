"""What rooms of the same document in several processes tell each other, over Redis. All of it may be lost."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Self
from uuid import UUID, uuid4

import structlog
from redis.asyncio import Redis

from api.relay.subscriber import Subscriber
from common.documents.channel import Kind, Note, document_channel, parse, publish
from common.redis import REDIS_DOWN

_MAX_WAITING = 10_000
_MAX_WAITING_BYTES = 16 * 1024 * 1024
_CONFIRM_S = 1.0

_log = structlog.get_logger(__name__)


class FanOut:
    """`on_note` gets what other processes say about an open document, `on_confirmed` that from here on nothing is
    missed, which is so again after each time that Redis was away.
    """

    def __init__(
        self, redis: Redis, *, on_note: Callable[[UUID, Note], None], on_confirmed: Callable[[UUID], None]
    ) -> None:
        self._redis = redis
        self._on_note = on_note
        self._on_confirmed = on_confirmed
        self._me = uuid4()
        self._documents: dict[bytes, UUID] = {}
        self._confirmed: dict[UUID, asyncio.Event] = {}
        self._waiting: deque[tuple[UUID, Note]] = deque()
        self._bytes = 0
        self._has_some = asyncio.Event()
        self._subscriber = Subscriber(redis, on_message=self._deliver, on_confirmed=self._confirm, on_lost=self._lose)
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._tasks = [
            asyncio.create_task(self._subscriber.run(), name="documents subscriber"),
            asyncio.create_task(self._publish_waiting(), name="documents publisher"),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def connected(self) -> bool:
        """Whether Redis publishes to this process."""
        return self._subscriber.connected

    async def join(self, document_id: UUID) -> None:
        """Hears about the document from here on, unless Redis is away."""
        channel = document_channel(document_id).encode()
        self._documents[channel] = document_id
        confirmed = self._confirmed[document_id] = asyncio.Event()
        self._subscriber.subscribe(channel)
        if not self._subscriber.away:
            try:
                async with asyncio.timeout(_CONFIRM_S):
                    await confirmed.wait()
            except TimeoutError:
                _log.warning("document_unconfirmed", document_id=str(document_id))

    def leave(self, document_id: UUID) -> None:
        """Hears no more about it."""
        channel = document_channel(document_id).encode()
        self._documents.pop(channel, None)
        self._confirmed.pop(document_id, None)
        self._subscriber.unsubscribe(channel)

    def publish(self, document_id: UUID, kind: Kind, payload: bytes = b"", seq: int = 0) -> None:
        """Tells the others soon, in order, and never waits."""
        if len(self._waiting) >= _MAX_WAITING or self._bytes >= _MAX_WAITING_BYTES:
            return  # They find out by themselves what they have missed.
        self._waiting.append((document_id, Note(kind, self._me, seq, payload)))
        self._bytes += len(payload)
        self._has_some.set()

    async def _publish_waiting(self) -> None:
        while True:
            await self._has_some.wait()
            while self._waiting:
                document_id, note = self._waiting.popleft()
                self._bytes -= len(note.payload)
                if self._subscriber.away:
                    continue
                try:
                    await publish(self._redis, document_id, note)
                except REDIS_DOWN as error:
                    _log.warning("document_note_lost", error=str(error))
            self._has_some.clear()

    def _deliver(self, channel: bytes, data: bytes) -> None:
        document_id = self._documents.get(channel)
        if document_id is None:
            return
        try:
            note = parse(data)
            if note.sender != self._me:
                self._on_note(document_id, note)
        except ValueError:
            _log.warning("document_note_malformed", document_id=str(document_id))

    def _confirm(self, channel: bytes) -> None:
        document_id = self._documents.get(channel)
        if document_id is not None:
            self._confirmed[document_id].set()
            self._on_confirmed(document_id)

    def _lose(self) -> None:
        """Who comes from now on waits for the next confirmation."""
        for confirmed in self._confirmed.values():
            confirmed.clear()
