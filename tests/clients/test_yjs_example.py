"""The editors of docs/documents.md, as they stand there."""

import base64
import json
import re
import time
from pathlib import Path

import pytest

from common.ids import new_id
from tests.clients.conftest import Pair
from tests.clients.node import NodeScript, node_script
from tests.support.documents import make_document, text_is_stored, token_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

_DOCUMENTATION = Path(__file__).resolve().parents[2] / "docs" / "documents.md"
_SHORT, _WHOLE = re.findall(r"```js\n(.*?)```", _DOCUMENTATION.read_text("utf-8"), re.DOTALL)


def _env(source: str, alice: Pair, document: str, *tokens: str) -> dict[str, str]:
    return {"SOURCE": source, "API": alice.here.url, "DOCUMENT": document, "TOKENS": json.dumps(tokens)}


async def _shows(script: NodeScript, text: str) -> None:
    while (await script.next("changed"))["text"] != text:
        pass


@pytest.mark.parametrize("source", [_SHORT, _WHOLE], ids=["short", "whole"])
async def test_editor_of_the_documentation_edits(alice: Pair, source: str) -> None:
    """It shows what is there, sends what is typed, and shows what others do."""
    document = await make_document(alice.here, "cod")
    async with node_script(
        "yjs", "example.mjs", _env(source, alice, document, token_of(alice.here.workspace_id))
    ) as script:
        await _shows(script, "cod")
        script.tell({"type": " eel"})
        await text_is_stored(alice.here, document, "cod eel")
        await alice.there.http.patch(f"/v1/documents/{document}", json={"content": "cod eel ray"})
        await _shows(script, "cod eel ray")


async def test_editor_of_the_documentation_goes_on_with_another_token(alice: Pair) -> None:
    """It comes back when its token's time is over, with what was typed meanwhile."""
    document = await make_document(alice.here, "cod")
    workspace = alice.here.workspace_id
    short = token_of(workspace, exp=int(time.time()) + 3)
    async with node_script("yjs", "example.mjs", _env(_WHOLE, alice, document, short, token_of(workspace))) as script:
        await _shows(script, "cod")
        while time.time() < json.loads(_payload(short))["exp"]:
            script.tell({"type": "."})
            typed = (await script.next("changed"))["text"]
        script.tell({"type": " eel"})
        await text_is_stored(alice.there, document, typed + " eel")


async def test_editor_of_the_documentation_gives_up_what_is_gone(alice: Pair) -> None:
    """A document that was deleted is not asked for again, nor one that never was."""
    document = await make_document(alice.here, "cod")
    token = token_of(alice.here.workspace_id)
    async with node_script("yjs", "example.mjs", _env(_WHOLE, alice, document, token)) as script:
        await _shows(script, "cod")
        await alice.here.http.delete(f"/v1/documents/{document}")
        assert (await script.next("refused"))["code"] == 4404
    async with node_script("yjs", "example.mjs", _env(_WHOLE, alice, str(new_id()), token)) as script:
        assert (await script.next("refused"))["code"] == 4404


def _payload(token: str) -> bytes:
    part = token.split(".")[1]
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
