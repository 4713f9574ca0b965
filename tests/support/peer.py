"""A peer of a document in Python: a real socket, and a pycrdt document behind it. Speaks just enough of y-websocket."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from pycrdt import Doc, Text
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from api.collaboration import messages
from api.collaboration.messages import AskChanges, Changes, TellPresence
from common.documents.awareness import Entry
from common.documents.lib0 import Malformed
from tests.support.eventually import eventually


class Peer:
    """Somebody who has a document open. What they type is sent at once; what others do comes by itself."""

    def __init__(self, socket: ClientConnection, first: bytes | str | None = None) -> None:
        self.socket = socket
        self.messages = 0
        self._first = first
        self.doc: Doc[Text] = Doc()
        self.content: Text = self.doc.get("content", type=Text)
        self.synced = asyncio.Event()
        self.present: dict[int, str] = {}
        self.refusals = 0
        self._remote = False
        self._sending: set[asyncio.Task[None]] = set()
        self._subscription = self.doc.observe(self._changed)
        self._reader = asyncio.create_task(self._read())

    @property
    def text(self) -> str:
        """What the document says here."""
        return str(self.content)

    @property
    def close_code(self) -> int | None:
        """Why the server has closed the socket; None while it is open."""
        return self.socket.close_code

    def type(self, text: str, at: int | None = None) -> None:
        """Inserts at `at`, in bytes, or at the end."""
        self.content.insert(len(str(self.content).encode()) if at is None else at, text)

    async def send(self, data: bytes | str) -> None:
        """Sends a message as it is."""
        await self.socket.send(data)

    async def announce(self, client: int, clock: int, state: str) -> None:
        """Says who is there."""
        await self.send(messages.tell_presence([Entry(client, clock, state)]))

    async def shows(self, wanted: str | Callable[[str], Any], timeout_s: float = 10) -> None:
        """Waits for a text."""
        test = wanted if callable(wanted) else lambda text: text == wanted
        try:
            await eventually(lambda: test(self.text), timeout_s, 0.005)
        except AssertionError:
            raise AssertionError(f"the document says {self.text!r}, not {wanted!r}") from None

    async def closed(self, timeout_s: float = 10) -> int:
        """Waits for the end of the socket; its close code."""
        async with asyncio.timeout(timeout_s):
            await self.socket.wait_closed()
        assert self.close_code is not None
        return self.close_code

    async def leave(self) -> None:
        """Closes the socket."""
        await self.socket.close()
        await self._reader

    def _changed(self, event: Any) -> None:
        if not self._remote:
            task = asyncio.create_task(self._send_change(event.update))
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)

    async def _send_change(self, update: bytes) -> None:
        with suppress(ConnectionClosed):  # It is sent when the server asks for it, over the next socket.
            await self.send(messages.tell_change(update))

    async def _read(self) -> None:
        with suppress(ConnectionClosed):
            if self._first is not None:
                await self.send(self._first)
            await self.send(messages.ask_changes(self.doc.get_state()))
            async for data in self.socket:
                assert isinstance(data, bytes)
                self.messages += 1
                await self._take(data)

    async def _take(self, data: bytes) -> None:
        try:
            message = messages.read_message(data)
        except Malformed:
            self.refusals += 1  # The one kind that only a server sends.
            return
        match message:
            case AskChanges(state):
                await self.send(messages.answer_changes(self.doc.get_update(state)))
            case Changes(update, _):
                self._remote = True
                self.doc.apply_update(update)
                self._remote = False
                self.synced.set()
            case TellPresence(entries):
                for entry in entries:
                    self.present.pop(entry.client, None)
                    if entry.state != "null":
                        self.present[entry.client] = entry.state
            case _:
                pass


@asynccontextmanager
async def peer(url: str, document_id: str, *, first: bytes | str | None = None, **options: Any) -> AsyncIterator[Peer]:
    """Opens a document at the API `url`, with `first` as the first message; `options` are those of the socket. It may
    be closed at once.
    """
    address = f"{url.replace('http', 'ws', 1)}/v1/documents/{document_id}/sync{options.pop('query', '')}"
    async with connect(address, max_size=None, proxy=None, **options) as socket:
        opened = Peer(socket, first)
        try:
            yield opened
        finally:
            await opened.leave()
