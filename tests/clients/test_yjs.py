"""yjs and y-websocket, unmodified, against the whole system: people and agents in one document at the same time."""

from typing import Any

import pytest

from tests.clients.conftest import Pair, Studio
from tests.support.documents import make_document, stored_text, text_is_stored
from tests.support.editors import Editor, agree
from tests.support.eventually import eventually
from tests.support.model_script import Call, Reply
from tests.support.tcp_proxy import Mode, TcpProxy

pytestmark = pytest.mark.asyncio(loop_scope="module")
_MODEL = {"provider": "anthropic", "model": "claude-test"}
_AT_ONCE_S = 3.0
"""Less than the 5 s after which an API finds by itself what it was not told."""
_EMOJI = "🐟👩‍🚀é𝒳"
"""Of one, two and more units each, wherever it is counted: UTF-8, UTF-16, code points, what a reader sees."""


async def test_all_type_at_once_and_agree(studio: Studio, alice: Pair) -> None:
    """Four people at two APIs, at one place and at others, with deletions: one text, and it is in the database."""
    document = await make_document(alice.here, "first\nmiddle\nlast\n")
    editors = [await studio.editors.join(person, document) for person in (*alice, *alice)]
    words = ["alpha ", "beta ", "gamma ", "delta "]
    await editors[3].delete(6, 6)
    # The last place first: what is typed before a place where somebody is about to begin would move it.
    for editor, word, place in reversed(list(zip(editors, words, (0, 0, 6, 7), strict=True))):
        await editor.begin_typing(place, word * 5, pause_ms=2)
    for editor in editors:
        await editor.has_typed()
    text = await agree(*editors)
    assert "middle" not in text
    assert {word: text.count(word) for word in words[2:]} == dict.fromkeys(words[2:], 5)
    # Those who type at one place may be woven into each other letter by letter, yet each stays in order.
    for word in words:
        assert _holds_in_order(text, word * 5)
    assert await stored_text(alice.here, document) == text
    late = await studio.editors.join(alice.there, document)
    await late.says(text)


async def test_what_was_typed_offline_is_merged(studio: Studio, alice: Pair) -> None:
    """Both sides of a separation keep what they wrote; what was deleted stays deleted."""
    document = await make_document(alice.here, "one two three")
    away = await studio.editors.join(alice.here, document)
    home = await studio.editors.join(alice.there, document)
    await away.disconnect()
    await away.insert(13, " and away")
    await away.delete(0, 4)
    await home.insert(4, "home ")
    await text_is_stored(alice.here, document, "one home two three")
    await away.connect()
    assert await agree(away, home) == "home two three and away"
    assert await stored_text(alice.there, document) == "home two three and away"


@pytest.mark.parametrize("fault", [Mode.RESET, Mode.DROP])
async def test_broken_connection_comes_back_by_itself(studio: Studio, alice: Pair, fault: Mode) -> None:
    """y-websocket connects again with the ticket that it has, and what was typed meanwhile gets through."""
    document = await make_document(alice.here, "text")
    host, _, port = alice.here.url.removeprefix("http://").partition(":")
    async with TcpProxy((host, int(port))) as proxy:
        shaky = await studio.editors.join(alice.here, document, url=f"http://{host}:{proxy.port}")
        steady = await studio.editors.join(alice.there, document)
        await shaky.begin_typing(4, " that was typed through a break" * 3)
        await steady.begin_typing(0, "Some ")
        proxy.switch(fault, new=False)
        await steady.has_typed()
        await shaky.has_typed()
        text = await agree(shaky, steady)
        assert text == "Some text" + " that was typed through a break" * 3
        assert proxy.accepted >= 2
        await shaky.disconnect()


async def test_who_types_on_a_slow_line_comes_back(studio: Studio, alice: Pair) -> None:
    """What is typed before the server has asked for what it has missed needs just that: it is no fault of the client's,
    which would not try again after a close with 4400.
    """
    document = await make_document(alice.here, "text")
    host, _, port = alice.here.url.removeprefix("http://").partition(":")
    async with TcpProxy((host, int(port))) as proxy:
        slow = await studio.editors.join(alice.here, document, url=f"http://{host}:{proxy.port}")
        witness = await studio.editors.join(alice.there, document)
        proxy.delay_s = 0.1
        await slow.disconnect()
        await slow.insert(4, " offline")
        await slow.begin_typing(12, " and then on a slow line" * 5)
        await slow.connect()
        await slow.has_typed()
        assert await agree(slow, witness) == "text offline" + " and then on a slow line" * 5
        assert (await slow.report()).closes == []
        await slow.disconnect()


async def test_large_paste_reaches_everybody(studio: Studio, alice: Pair) -> None:
    """Also one that is too large to be told over Redis: the other API reads it from the database."""
    document = await make_document(alice.here, "before ")
    here = await studio.editors.join(alice.here, document)
    there = await studio.editors.join(alice.there, document)
    paste = "".join(f"line {number}\n" for number in range(40_000))
    await here.insert(7, paste)
    await here.insert(0, "!")
    await there.says("!before " + paste)
    await there.delete(8, len(paste))
    await here.says("!before ")


async def test_agent_edits_the_paragraph_in_which_somebody_types(studio: Studio, alice: Pair) -> None:
    """Its edit is seen at once at every API, nothing of what was typed is lost, and the agent is shown as one."""
    document = await make_document(alice.here, "The quick fox jumps over the lazy dog.\n")
    here = await studio.editors.join(alice.here, document, name="Ann")
    there = await studio.editors.join(alice.there, document, name="Bob")
    studio.system.models.script(
        Reply(calls=(Call("doc_edit", {"id": document, "old_text": "the lazy dog", "new_text": "a sleepy cat"}),)),
        Reply(calls=(Call("doc_append", {"id": document, "content": "Fin.\n"}),)),
        Reply(text="done"),
    )
    # Within what the agent replaces nobody types: what it looks for would not be there.
    await there.begin_typing(38, "?" * 100, pause_ms=4)  # first, or its place would move
    await here.begin_typing(4, "very " * 60, pause_ms=4)
    run = await alice.here.start("go", **_MODEL)
    await alice.here.state_is(run, "completed")
    assert (await here.report()).typing, "the agent came too late to meet somebody who types"
    for editor in (here, there):
        await editor.has_typed()
    text = await agree(here, there)
    assert text == "The " + "very " * 60 + "quick fox jumps over a sleepy cat." + "?" * 100 + "\nFin.\n"
    for editor in (here, there):
        [agent] = {state["user"]["name"]: state for state in await _agents_met(editor)}.values()
        assert agent["user"]["agent"] is True
        assert agent["user"]["name"]


async def test_agent_leaves_when_it_has_edited(studio: Studio, alice: Pair) -> None:
    """It is no ghost: some time after its run nobody is shown any more."""
    document = await make_document(alice.here, "cod")
    editor = await studio.editors.join(alice.there, document, name="Ann")
    call = Call("doc_edit", {"id": document, "old_text": "cod", "new_text": "eel"})
    studio.system.models.script(Reply(calls=(call,)), Reply(text="done"))
    await alice.here.start("go", **_MODEL)
    await editor.says("eel")
    await eventually(lambda: _agents_met(editor))
    await editor.has_company(timeout_s=40)


async def test_offsets_are_everybodys_own(studio: Studio, alice: Pair) -> None:
    """Behind emoji, Yjs counts UTF-16 units, pycrdt bytes and Python code points, and all mean the same place."""
    document = await make_document(alice.here, f"{_EMOJI}|tail\n")
    editor = await studio.editors.join(alice.here, document)
    other = await studio.editors.join(alice.there, document)
    bar = len(f"{_EMOJI}".encode("utf-16-le")) // 2
    await editor.insert(bar, "<yjs🦈>")
    await text_is_stored(alice.here, document, f"{_EMOJI}<yjs🦈>|tail\n")
    wanted = f"{_EMOJI}<patch𝒴>|tail 🐙\n"
    patched = await alice.there.http.patch(f"/v1/documents/{document}", json={"content": wanted})
    assert patched.json()["content"] == wanted
    await editor.says(wanted)
    call = Call("doc_edit", {"id": document, "old_text": "|tail 🐙", "new_text": "|tail 🐙🐠 end"})
    studio.system.models.script(Reply(calls=(call,)), Reply(text="done"))
    await alice.here.state_is(await alice.here.start("go", **_MODEL), "completed")
    await editor.says(f"{_EMOJI}<patch𝒴>|tail 🐙🐠 end\n")
    await editor.delete(0, 2)
    text = await agree(editor, other)
    assert text == f"{_EMOJI[1:]}<patch𝒴>|tail 🐙🐠 end\n" == await stored_text(alice.there, document)


async def test_edits_are_seen_at_once_at_the_other_api(studio: Studio, alice: Pair) -> None:
    """Of people, of PATCH and of agents: one after the other comes sooner than the next look into the database."""
    document = await make_document(alice.here, "0")
    here, there = [await studio.editors.join(person, document) for person in alice]
    for number in range(2):
        await here.insert(0, "typed ")
        await there.says(f"typed {number}", _AT_ONCE_S)
        patched = await alice.here.http.patch(f"/v1/documents/{document}", json={"content": "patched"})
        assert patched.status_code == 200, patched.text
        await there.says("patched", _AT_ONCE_S)
        call = Call("doc_edit", {"id": document, "old_text": "patched", "new_text": str(number + 1)})
        studio.system.models.script(Reply(calls=(call,)), Reply(text="done"))
        await alice.here.state_is(await alice.here.start("go", **_MODEL), "completed")
        for editor in (here, there):
            await editor.says(str(number + 1), _AT_ONCE_S)


async def test_typing_emoji_beside_each_other(studio: Studio, alice: Pair) -> None:
    """Surrogate pairs of several people at one place are never torn apart."""
    document = await make_document(alice.here)
    here, there = [await studio.editors.join(person, document) for person in alice]
    await here.begin_typing(0, "🐟" * 30, pause_ms=1)
    await there.begin_typing(0, "🐙" * 30, pause_ms=1)
    for editor in (here, there):
        await editor.has_typed()
    text = await agree(here, there)
    assert (len(text), text.count("🐟"), text.count("🐙")) == (60, 30, 30)
    assert await stored_text(alice.here, document) == text


async def test_patch_is_a_minimal_edit_of_the_open_document(studio: Studio, alice: Pair) -> None:
    """Open editors show it at once; what somebody writes offline in a line that it leaves alone is kept."""
    document = await make_document(alice.here, "# Title\n\nold line\n\nparagraph\n")
    here, there = [await studio.editors.join(person, document) for person in alice]
    await here.disconnect()
    await here.insert(28, " goes on")
    wanted = "# Title 🐟\n\nnew line\n\nparagraph\n"
    answer = await alice.there.http.patch(f"/v1/documents/{document}", json={"content": wanted})
    assert answer.status_code == 200, answer.text
    await there.says(wanted)
    await here.connect()
    assert await agree(here, there) == "# Title 🐟\n\nnew line\n\nparagraph goes on\n"


def _holds_in_order(text: str, part: str) -> bool:
    """Whether the characters of `part` are in `text`, in their order, others between them or not."""
    characters = iter(text)
    return all(character in characters for character in part)


async def _agents_met(editor: Editor) -> list[dict[str, Any]]:
    """The states of agents that this editor has ever been shown."""
    return [state for state in (await editor.report()).met if state.get("user", {}).get("agent")]
