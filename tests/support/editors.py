"""Editors in a process of Node, with the packages of npm that applications use: yjs and y-websocket."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from tests.clients.node import NodeScript, node_script
from tests.support.documents import room_of, ticket_for
from tests.support.eventually import eventually
from tests.support.system import Client

_PATIENCE_S = 15.0


class Report(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """What an editor shows and knows."""

    text: str
    client_id: int
    state: dict[int, int]
    """Its state vector: the next clock of each client."""
    waiting: bool
    """Whether something has come that depends on what has not."""
    synced: bool
    awareness: dict[int, Any]
    met: list[dict[str, Any]]
    """Every state that it was ever shown, its own included."""
    closes: list[tuple[int, str]]
    """Code and reason of each close by the other side, in order."""
    denials: list[str]
    typing: int

    @property
    def others(self) -> list[str]:
        """The names that others show, sorted."""
        return sorted(
            state.get("user", {}).get("name", "?")
            for client, state in self.awareness.items()
            if client != self.client_id
        )


class Editor:
    """Somebody's open document. Places are those of JavaScript: UTF-16 units."""

    def __init__(self, editors: "Editors", name: str) -> None:
        self._editors = editors
        self._name = name

    async def insert(self, index: int, text: str) -> None:
        await self._do("insert", index=index, text=text)

    async def delete(self, index: int, length: int) -> None:
        await self._do("delete", index=index, length=length)

    async def begin_typing(self, index: int, text: str, pause_ms: float = 3) -> None:
        """Begins to type, character by character; what others do before the cursor moves it."""
        await self._do("type", index=index, text=text, pauseMs=pause_ms)

    async def has_typed(self, timeout_s: float = _PATIENCE_S) -> None:
        """Waits until everything that it began to type is typed."""
        await self._sees(lambda report: report.typing, 0, timeout_s)

    async def connect(self, ticket: str | None = None) -> None:
        """Connects again, by default as before."""
        await self._do("connect", params=ticket and {"ticket": ticket})

    async def disconnect(self) -> None:
        """Goes offline, as when the document is closed; it can be edited on."""
        await self._do("disconnect")

    async def cut(self) -> None:
        """Is gone without a word, and does not come back by itself."""
        await self._do("cut")

    async def show(self, awareness: dict[str, Any] | None) -> None:
        """Tells others about itself; None hides it."""
        await self._do("show", awareness=awareness)

    async def report(self) -> Report:
        """As it is now."""
        return msgspec.convert(await self._do("report"), Report, strict=False)

    async def text(self) -> str:
        return (await self.report()).text

    async def is_synced(self, timeout_s: float = _PATIENCE_S) -> None:
        """Waits until it is connected and has all that the server has."""
        await self._sees(lambda report: report.synced, True, timeout_s)

    async def says(self, text: str, timeout_s: float = _PATIENCE_S) -> None:
        """Waits until it shows this text."""
        await self._sees(lambda report: report.text, text, timeout_s)

    async def has_company(self, *names: str, timeout_s: float = _PATIENCE_S) -> None:
        """Waits until just these others are shown to be there."""
        await self._sees(lambda report: report.others, sorted(names), timeout_s)

    async def is_closed(self, code: int, timeout_s: float = _PATIENCE_S) -> str:
        """Waits until the server has closed it; the reason that it was given. Any other code fails."""
        closes: list[tuple[int, str]] = []

        async def closed() -> bool:
            closes[:] = (await self.report()).closes
            return bool(closes)

        await eventually(closed, timeout_s)
        assert closes[-1][0] == code, closes
        return closes[-1][1]

    async def _sees(self, aspect: Any, wanted: Any, timeout_s: float = _PATIENCE_S) -> None:
        async def seen() -> bool:
            report = await self.report()
            assert aspect(report) == wanted, report
            return True

        await eventually(seen, timeout_s)

    async def _do(self, what: str, **given: Any) -> Any:
        return await self._editors.tell({"editor": self._name, "do": what, **given})


class Editors:
    """All editors of one process."""

    def __init__(self, script: NodeScript) -> None:
        self._script = script
        self._turn = asyncio.Lock()
        self._numbers = itertools.count(1)

    async def open(
        self,
        someone: Client,
        document: str,
        *,
        name: str | None = None,
        url: str | None = None,
        ticket: str | None = None,
        headers: dict[str, str] | None = None,
        first: str | None = None,
    ) -> Editor:
        """One that begins to connect, as `someone`: with `headers`, with the `first` message, by default with a ticket.

        `name` is shown to others; `url` is the API's, by default that of `someone`.
        """
        params = {}
        if ticket is not None or (headers is None and first is None):
            params["ticket"] = ticket or await ticket_for(someone, document)
        number = str(next(self._numbers))
        opened: dict[str, Any] = {
            "editor": number,
            "do": "open",
            "url": room_of(url or someone.url, document),
            "params": params,
            "headers": headers or {},
            "awareness": None if name is None else {"user": {"name": name}},
        }
        await self.tell(opened if first is None else {**opened, "first": first})
        return Editor(self, number)

    async def join(self, someone: Client, document: str, **given: Any) -> Editor:
        """One that is connected and has everything."""
        editor = await self.open(someone, document, **given)
        await editor.is_synced()
        return editor

    async def tell(self, command: dict[str, Any]) -> Any:
        """What the script answers to a command."""
        async with self._turn:
            self._script.tell(command)
            answer = await self._script.next("did")
            self._script.seen.clear()
        assert "error" not in answer, answer["error"]
        return answer.get("answer")


@asynccontextmanager
async def running_editors() -> AsyncIterator[Editors]:
    """A process without editors yet; it is killed at the end, with all that are open."""
    async with node_script("yjs", "editor.mjs", {}) as script:
        yield Editors(script)


async def agree(*editors: Editor, timeout_s: float = _PATIENCE_S) -> str:
    """Waits until all are connected and have the same state; the text that they show then."""

    async def agreed() -> bool:
        reports = [await editor.report() for editor in editors]
        first = reports[0]
        assert all(
            report.synced and not report.waiting and (report.state, report.text) == (first.state, first.text)
            for report in reports
        ), reports
        return True

    await eventually(agreed, timeout_s)
    return await editors[0].text()
