"""yjs and y-websocket, unmodified: who is shown to be there, and that nobody is who has gone."""

import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.clients.conftest import Pair, Studio
from tests.support.documents import make_document, ticket_for
from tests.support.editors import agree
from tests.support.raw_sync import RawSync, State, awareness_message, raw_sync
from tests.support.system import Client
from tests.support.tcp_proxy import Mode, TcpProxy

pytestmark = pytest.mark.asyncio(loop_scope="module")
_RETURN_S = 8.0
"""Less than the 15 s after which a client says again that it is there."""
_PASTE = 500_000
_ROUNDS = 32
"""Of pastes: 8 MB for the server's queue, and what the kernel keeps."""
_SWEPT_S = 50.0


async def test_all_see_who_is_there(studio: Studio, alice: Pair) -> None:
    """Also those who come later, at either API; a changed state is passed on, a hidden one vanishes."""
    document = await make_document(alice.here)
    ann = await studio.editors.join(alice.here, document, name="Ann")
    bob = await studio.editors.join(alice.there, document, name="Bob")
    await ann.has_company("Bob")
    await bob.has_company("Ann")
    cid = await studio.editors.join(alice.there, document, name="Cid")
    await cid.has_company("Ann", "Bob")
    await bob.show({"user": {"name": "Robert"}, "cursor": {"anchor": 0, "head": 3}})
    await ann.has_company("Cid", "Robert")
    await bob.show(None)
    await ann.has_company("Cid")
    await bob.show({"user": {"name": "Bob"}})
    await ann.has_company("Bob", "Cid")


@pytest.mark.parametrize("way", ["leaves", "is cut off", "is reset by the network"])
async def test_who_has_gone_is_not_shown(studio: Studio, alice: Pair, way: str) -> None:
    """With a goodbye or without: everybody else sees it at once, and so does who comes later; and so is a return."""
    document = await make_document(alice.here)
    host, _, port = alice.here.url.removeprefix("http://").partition(":")
    async with TcpProxy((host, int(port))) as proxy:
        ann = await studio.editors.join(alice.here, document, name="Ann", url=f"http://{host}:{proxy.port}")
        bob = await studio.editors.join(alice.here, document, name="Bob")
        cid = await studio.editors.join(alice.there, document, name="Cid")
        await bob.has_company("Ann", "Cid")
        await cid.has_company("Ann", "Bob")
        if way == "leaves":
            await ann.disconnect()
        elif way == "is cut off":
            await ann.cut()
        else:
            proxy.switch(Mode.RESET)
        await bob.has_company("Cid")
        await cid.has_company("Bob")
        late = await studio.editors.join(alice.there, document, name="Late")
        await late.has_company("Bob", "Cid")
        if way != "is reset by the network":
            await ann.connect()
            await cid.has_company("Ann", "Bob", "Late", timeout_s=_RETURN_S)
        await ann.disconnect()


async def test_who_only_looks_on_keeps_nobody_alive(studio: Studio, alice: Pair) -> None:
    """y-websocket repeats to its server what it hears of others: who has nothing to say of itself is not taken for
    them, neither while they are there nor when they have left.
    """
    document = await make_document(alice.here)
    ann = await studio.editors.join(alice.here, document, name="Ann")
    silent = [await studio.editors.join(person, document) for person in (*alice, *alice)]
    for editor in silent:
        await editor.has_company("Ann")
    for editor in silent[2:]:
        await editor.disconnect()
    await ann.show({"user": {"name": "Anna"}})
    for editor in silent[:2]:
        await editor.has_company("Anna")
    await ann.disconnect()
    for editor in silent[:2]:
        await editor.has_company()
    late = await studio.editors.join(alice.there, document)
    await late.insert(0, "x")
    await silent[0].says("x")
    await late.has_company()


@pytest.mark.slow
async def test_nobody_of_a_killed_api_haunts_the_others(studio: Studio, alice: Pair) -> None:
    """Nobody says goodbye for them: they are swept, and who comes afterwards is not told of them either."""
    document = await make_document(alice.here)
    dying = await studio.system.api()
    lost = await studio.system.client(dying, alice.here.workspace_id)
    ghost = await studio.editors.join(lost, document, name="Ghost")
    bob = await studio.editors.join(alice.there, document, name="Bob")
    await bob.has_company("Ghost")
    await dying.stop(signal.SIGKILL)
    await bob.has_company(timeout_s=_SWEPT_S)
    late = await studio.editors.join(alice.there, document, name="Late")
    await late.insert(0, "x")
    await bob.says("x")
    await late.has_company("Bob")
    await ghost.disconnect()


@pytest.mark.slow
async def test_who_does_not_read_is_closed_and_nobody_else_notices(studio: Studio, alice: Pair) -> None:
    """Sockets that take nothing while megabytes are typed: one that reads at last is told 4508, one that never does is
    broken off; all others go on.
    """
    document = await make_document(alice.here)
    editors = [await studio.editors.join(person, document, name=name) for name, person in zip("AB", alice, strict=True)]
    async with _stuck(alice.here, document, "Late") as late, _stuck(alice.here, document, "Never") as never:
        await editors[1].has_company("A", "Late", "Never")
        for number in range(_ROUNDS):
            paste = f"{number} ".rjust(_PASTE, "x")
            await editors[1].insert(0, paste)
            await editors[0].says(paste)
            await editors[0].delete(0, _PASTE)
            await editors[1].says("")
        assert (await late.close_code())[0] == 4508
        await editors[1].has_company("A")
        assert (await never.close_code())[0] in (4508, 1006)
    await editors[0].insert(0, "on it goes")
    assert await agree(*editors) == "on it goes"
    assert [(await editor.report()).closes for editor in editors] == [[], []]


@asynccontextmanager
async def _stuck(someone: Client, document: str, name: str) -> AsyncIterator[RawSync]:
    """Somebody who shows a name and then reads no more; the kernel holds little for a receiver like that."""
    host, _, port = someone.url.removeprefix("http://").partition(":")
    query = f"?ticket={await ticket_for(someone, document)}"
    plug = socket.socket()
    plug.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    plug.connect((host, int(port)))
    async with raw_sync(someone.url, document, query=query, sock=plug, max_queue=1, ping_interval=None) as stuck:
        client = 1 + sum(name.encode())
        await stuck.send(awareness_message([State(client, 1, f'{{"user": {{"name": "{name}"}}}}')]))
        yield stuck
