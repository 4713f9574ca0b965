"""The editor of docs/documents.md, as it stands there."""

import json
import re
import time
from pathlib import Path

import pytest

from tests.clients.conftest import Pair
from tests.clients.node import node_script
from tests.support.documents import make_document, text_is_stored, token_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

_DOCUMENTATION = Path(__file__).resolve().parents[2] / "docs" / "documents.md"


async def test_editor_of_the_documentation_goes_on_with_another_token(alice: Pair) -> None:
    """It shows what is there, sends what is typed, and comes back when its token's time is over."""
    [source] = re.findall(r"```js\n(.*?)```", _DOCUMENTATION.read_text("utf-8"), re.DOTALL)
    document = await make_document(alice.here, "cod")
    workspace = alice.here.workspace_id
    env = {
        "SOURCE": source,
        "API": alice.here.url,
        "DOCUMENT": document,
        "TOKENS": json.dumps([token_of(workspace, exp=int(time.time()) + 3), token_of(workspace)]),
    }
    async with node_script("yjs", "example.mjs", env) as script:
        assert (await script.next("synced"))["text"] == "cod"
        script.tell({"type": " eel"})
        await text_is_stored(alice.here, document, "cod eel")
        assert (await script.next("closed"))["code"] == 4401
        script.tell({"type": " ray"})
        await text_is_stored(alice.there, document, "cod eel ray")
        await alice.there.http.patch(f"/v1/documents/{document}", json={"content": "cod eel ray!"})
        while (await script.next("changed"))["text"] != "cod eel ray!":
            pass


async def test_editor_of_the_documentation_gives_up_what_is_gone(alice: Pair) -> None:
    """A document that was deleted is not asked for again."""
    [source] = re.findall(r"```js\n(.*?)```", _DOCUMENTATION.read_text("utf-8"), re.DOTALL)
    document = await make_document(alice.here, "cod")
    tokens = json.dumps([token_of(alice.here.workspace_id)])
    env = {"SOURCE": source, "API": alice.here.url, "DOCUMENT": document, "TOKENS": tokens}
    async with node_script("yjs", "example.mjs", env) as script:
        await script.next("synced")
        await alice.here.http.delete(f"/v1/documents/{document}")
        assert (await script.next("closed"))["code"] == 4404
