"""Whatever a member sends costs at most the connection that it came by: yjs editors at two APIs notice nothing."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import pytest
import pytest_asyncio

from tests.clients.conftest import Pair, Studio
from tests.support.documents import make_document, stored_text, ticket_for
from tests.support.editors import Editor, agree
from tests.support.eventually import eventually
from tests.support.hostile import ATTACKS, INCOMPLETE, ME, NOBODY, PREFIXES, Attack
from tests.support.raw_sync import (
    EMPTY_UPDATE,
    RawSync,
    State,
    awareness_message,
    delete_set,
    raw_sync,
    step1,
    step2,
    string_item,
    update,
    update_message,
)

pytestmark = pytest.mark.asyncio(loop_scope="module")
_TEXT = "steady 🐟"


class Witnesses(NamedTuple):
    """Two editors of the attacked document, one at each API; the attacks come to the first."""

    studio: Studio
    alice: Pair
    document: str
    near: Editor
    far: Editor

    @asynccontextmanager
    async def attacker(self, **given: Any) -> AsyncIterator[RawSync]:
        """A connection of another person, with everything that a member may."""
        query = f"?ticket={await ticket_for(self.alice.here, self.document, 'mallory')}"
        async with raw_sync(self.alice.here.url, self.document, query=query, **given) as raw:
            yield raw

    async def noticed_nothing(self, text: str = _TEXT) -> None:
        """Both are connected, say `text` and what they type now, and so do the database and whoever comes later."""
        for editor, mark in ((self.near, "+"), (self.far, "-")):
            await editor.insert(0, mark)
            text = mark + text
            for each in (self.near, self.far):
                await each.says(text)
        late = await self.studio.editors.join(self.alice.here, self.document)
        assert await agree(self.near, self.far, late) == text
        assert await stored_text(self.alice.there, self.document) == text
        assert [(await each.report()).closes for each in (self.near, self.far)] == [[], []]
        await late.disconnect()
        await self.near.has_company("Far")
        for api in (self.studio.here, self.studio.there):
            api.check_running()
            assert "Traceback" not in api.output()
        assert (await self.alice.here.http.get("/health/live")).status_code == 200


@pytest_asyncio.fixture(loop_scope="module")
async def witnesses(studio: Studio, alice: Pair) -> AsyncIterator[Witnesses]:
    """Of a document of their own; they leave at the end."""
    document = await make_document(alice.here, _TEXT)
    near = await studio.editors.join(alice.here, document, name="Near")
    far = await studio.editors.join(alice.there, document, name="Far")
    await near.has_company("Far")
    yield Witnesses(studio, alice, document, near, far)
    await near.disconnect()
    await far.disconnect()


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name.replace(" ", "-"))
async def test_attack_costs_its_own_connection(witnesses: Witnesses, attack: Attack) -> None:
    """It is closed with a reason, or what it said is passed over."""
    async with witnesses.attacker() as raw:
        await raw.send(*attack.frames)
        if attack.code is None:
            await raw.whole_document()
        else:
            code, reason = await raw.close_code()
            assert (code, bool(reason)) == (attack.code, True)
    await witnesses.noticed_nothing()


@pytest.mark.parametrize("what", INCOMPLETE)
async def test_what_is_missing_never_comes(witnesses: Witnesses, what: str) -> None:
    """Who is asked for it and has nothing to say, and begins anew, is closed at last."""
    async with witnesses.attacker() as raw:
        for _ in range(200):
            await raw.send(INCOMPLETE[what], step2(EMPTY_UPDATE))
        assert (await raw.close_code())[0] == 4400
    await witnesses.noticed_nothing()


async def test_update_that_is_cut_off_anywhere_is_refused(witnesses: Witnesses) -> None:
    """Behind whichever byte: none is taken for a shorter update."""
    for frame in PREFIXES:
        async with witnesses.attacker() as raw:
            await raw.send(frame)
            assert (await raw.close_code())[0] == 4400
    await witnesses.noticed_nothing()


@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_message_that_is_too_large_is_refused(witnesses: Witnesses, compression: str | None) -> None:
    """Also one that is small until it is unpacked: 64 MB of nothing."""
    async with witnesses.attacker(compression=compression) as raw:
        await raw.send(b"\x00" * 64_000_000)
        assert (await raw.close_code())[0] in (4413, 1009)
    await witnesses.noticed_nothing()


async def test_awareness_of_somebody_else_is_not_changed(witnesses: Witnesses) -> None:
    """Neither replaced nor removed: a client id belongs to the connection that has announced it."""
    victims = [(await editor.report()).client_id for editor in (witnesses.near, witnesses.far)]
    async with witnesses.attacker() as raw:
        for state in ('{"user": {"name": "Impostor"}}', "null"):
            await raw.send(awareness_message(State(victim, 1_000_000, state) for victim in victims))
        await raw.whole_document()
        await raw.send(awareness_message([State(ME, 1, '{"user": {"name": "Marker"}}')]))
        await witnesses.near.has_company("Far", "Marker")
        await witnesses.far.has_company("Marker", "Near")
    for editor in (witnesses.near, witnesses.far):
        assert "Impostor" not in str((await editor.report()).met)
    await witnesses.noticed_nothing()


async def test_one_connection_cannot_fill_the_room_with_strangers(witnesses: Witnesses) -> None:
    """Of many clients that one connection announces few are shown, and all of them leave with it."""
    async with witnesses.attacker() as raw:
        crowd = [State(ME + number, 1, f'{{"user": {{"name": "{number}"}}}}') for number in range(200)]
        for state in crowd:
            await raw.send(awareness_message([state]))
        await raw.send(awareness_message(crowd))
        await raw.send(awareness_message([State(ME, 2, '{"user": {"name": "0"}, "last": true}')]))
        await eventually(lambda: _last_is_shown(witnesses.far))
        assert 2 <= len((await witnesses.far.report()).others) <= 65
    await witnesses.far.has_company("Near")
    await witnesses.noticed_nothing()


async def _last_is_shown(editor: Editor) -> bool:
    return any(state.get("last") for state in (await editor.report()).awareness.values())


async def test_awareness_of_the_highest_clock_can_leave(witnesses: Witnesses) -> None:
    """2^53 - 1 has no successor for a client in JavaScript; whoever has it is no ghost all the same."""
    async with witnesses.attacker() as raw:
        await raw.send(awareness_message([State(ME, 2**53 - 1, '{"user": {"name": "Last"}}')]))
        await raw.whole_document()
    await witnesses.noticed_nothing()


@pytest.mark.parametrize("kind", ["questions", "pings", "awareness", "queries"])
async def test_flood_holds_nobody_up(witnesses: Witnesses, kind: str) -> None:
    """Thousands of messages at once, and no answer is read: others type on meanwhile; the flood may be cut off."""
    frames = {
        "questions": step1(),
        "awareness": awareness_message([]),
        "queries": b"\x03",
    }
    async with witnesses.attacker(max_queue=4, ping_interval=None) as raw:

        async def flood() -> None:
            for number in range(5000):
                if kind == "pings":
                    await raw.socket.ping(str(number))
                else:
                    await raw.socket.send(frames[kind])

        flooding = asyncio.create_task(flood())
        await witnesses.near.insert(0, "!")
        await witnesses.far.says("!" + _TEXT, 5)
        await asyncio.wait([flooding], timeout=5)
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)
    await witnesses.noticed_nothing("!" + _TEXT)


async def test_flood_of_pastes_is_taken_in_turn(witnesses: Witnesses) -> None:
    """Who sends much at once gets it all in, and others type between."""
    count, size = 60, 50_000
    async with witnesses.attacker() as raw:
        for number in range(count):
            left = (ME, number * size - 1) if number else None
            await raw.send(update_message(update(ME, number * size, [string_item("y" * size, left=left)])))
        await raw.send(update_message(b"\x00" + delete_set(ME, (0, count * size))))
        await witnesses.near.insert(0, "!")
        await witnesses.far.says("!" + _TEXT, 30)
    await witnesses.noticed_nothing("!" + _TEXT)


_HALVES = {
    "text between them": update(NOBODY, 0, [string_item("x", left=(ME, 0), right=(ME, 1))]),
    "text behind the first": update(NOBODY, 0, [string_item("x", left=(ME, 0))]),
    "text before the second": update(NOBODY, 0, [string_item("x", right=(ME, 1))]),
    "the first deleted": b"\x00" + delete_set(ME, (0, 1)),
    "the second deleted": b"\x00" + delete_set(ME, (1, 1)),
    "the second deleted, and what follows": b"\x00" + delete_set(ME, (1, 2)),
}


@pytest.mark.parametrize("what", _HALVES)
async def test_character_in_halves_does_not_part_those_who_read_it(witnesses: Witnesses, what: str) -> None:
    """Emoji are two units, and nothing keeps an editor from changing one: whatever comes of it, all read the same."""
    async with witnesses.attacker() as raw:
        await raw.send(update_message(update(ME, 0, [string_item("🐙z")])))
        await eventually(lambda: _shows(witnesses.far, "🐙z"))
        await raw.send(update_message(_HALVES[what]))
        await raw.is_read()
    await _all_agree(witnesses)


async def test_editor_that_tears_an_emoji_apart_harms_nobody_else(witnesses: Witnesses) -> None:
    """As a comparison by units does that makes one emoji of another: their first halves are the same."""
    document = await make_document(witnesses.alice.here, "🐙 and more")
    tearing = await witnesses.studio.editors.join(witnesses.alice.here, document)
    near, far = [await witnesses.studio.editors.join(person, document) for person in witnesses.alice]
    await tearing.delete(1, 1)
    await tearing.insert(1, "x")
    await near.insert(len("🐙 and more") + 1, "!")
    await eventually(lambda: _shows(far, "!"))
    late = await witnesses.studio.editors.join(witnesses.alice.there, document)
    text = await agree(near, far, late)
    assert await stored_text(witnesses.alice.there, document) == text
    assert text.endswith(" and more!")


async def test_client_id_of_somebody_else_harms_at_most_oneself(witnesses: Witnesses) -> None:
    """Text under the id of a victim: the room, the database and all who did not use that id agree afterwards."""
    editor = await witnesses.studio.editors.join(witnesses.alice.here, witnesses.document)
    victim = (await editor.report()).client_id
    await editor.insert(0, "mine ")
    await witnesses.far.says("mine " + _TEXT)
    async with witnesses.attacker() as raw:
        await raw.send(update_message(update(victim, 5, [string_item("forged ", left=(victim, 4))])))
        await raw.whole_document()
    await editor.insert(0, "lost ")
    await editor.cut()
    await _all_agree(witnesses)


async def _shows(editor: Editor, part: str) -> bool:
    return part in await editor.text()


async def _all_agree(witnesses: Witnesses) -> None:
    """Whatever it is that they say: both, one that comes later, and the database say it."""
    await witnesses.near.insert(0, "+")
    late = await witnesses.studio.editors.join(witnesses.alice.here, witnesses.document)
    text = await agree(witnesses.near, witnesses.far, late)
    assert "+" in text
    assert _TEXT in text
    text.encode()
    assert await stored_text(witnesses.alice.there, witnesses.document) == text
    assert [(await each.report()).closes for each in (witnesses.near, witnesses.far)] == [[], []]
