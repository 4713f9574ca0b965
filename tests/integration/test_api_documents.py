"""Documents over HTTP, while nobody has them open."""

import httpx
import pytest

from common.ids import new_id
from tests.support.api_client import refusal_of


async def _make(client: httpx.AsyncClient, name: str = "Fish", content: str = "") -> dict[str, object]:
    answer = await client.post("/v1/documents", json={"name": name, "content": content})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def _found(client: httpx.AsyncClient, words: str) -> list[str]:
    return [found["name"] for found in (await client.get("/v1/documents", params={"q": words})).json()["data"]]


async def test_document_is_made_with_its_text(client: httpx.AsyncClient) -> None:
    """The text is its first update; every field is answered, null when empty."""
    made = await _make(client, content="# Fish\n\ncod 😀\n")

    assert (made["content"], made["headSeq"], made["kind"]) == ("# Fish\n\ncod 😀\n", 1, "markdown")
    assert (made["createdBy"], made["updatedBy"], made["deletedAt"]) == ("alice", "alice", None)
    assert (await client.get(f"/v1/documents/{made['id']}")).json() == made


async def test_document_without_text_is_empty(client: httpx.AsyncClient) -> None:
    """A name is enough."""
    made = await _make(client)
    assert (made["content"], made["headSeq"]) == ("", 0)
    assert (await client.get(f"/v1/documents/{made['id']}")).json() == made


async def test_change_of_the_content_is_an_edit(client: httpx.AsyncClient) -> None:
    """What it says afterwards is what was sent; the history says who and how much; the same again is none."""
    made = await _make(client, content="# Fish\n\ncod\n")
    path = f"/v1/documents/{made['id']}"

    changed = (await client.patch(path, json={"content": "# Birds\n\ncod\n\nend"})).json()
    again = (await client.patch(path, json={"content": "# Birds\n\ncod\n\nend"})).json()

    assert (changed["content"], changed["headSeq"], changed["name"]) == ("# Birds\n\ncod\n\nend", 2, "Fish")
    assert (again["content"], again["headSeq"]) == (changed["content"], 2)
    [edit] = (await client.get(f"{path}/history")).json()["data"]
    assert (edit["firstSeq"], edit["lastSeq"], edit["actorKind"], edit["actorId"]) == (1, 2, "user", "alice")
    assert (edit["inserted"], edit["removed"]) == (len("# Fish\n\ncod\n") + len("Birds") + len("\nend"), len("Fish"))


async def test_rename_leaves_the_text(client: httpx.AsyncClient) -> None:
    """Only what is named is changed."""
    made = await _make(client, content="cod")
    renamed = (await client.patch(f"/v1/documents/{made['id']}", json={"name": "Sea"})).json()
    assert (renamed["name"], renamed["content"], renamed["headSeq"]) == ("Sea", "cod", 1)


async def test_search_finds_words_of_the_name_and_the_text(client: httpx.AsyncClient) -> None:
    """All of them, in any case of letters, and what they begin with; a change of the text is found at once."""
    made = await _make(client, "Deep sea", "The cod swims.")
    await _make(client, "Birds", "The owl flies.")

    assert await _found(client, "COD") == ["Deep sea"]
    assert await _found(client, "sea swi") == ["Deep sea"]
    assert await _found(client, "the") == ["Birds", "Deep sea"]
    assert await _found(client, "cod owl") == []
    assert await _found(client, "'; drop & | ! :* (") == []
    await client.patch(f"/v1/documents/{made['id']}", json={"content": "The eel swims."})
    assert await _found(client, "cod") == []
    assert await _found(client, "eel") == ["Deep sea"]


async def test_list_comes_in_pieces(client: httpx.AsyncClient) -> None:
    """Newest first, each document once; the cursor of one search is not another's."""
    for number in range(5):
        await _make(client, f"number {number}")

    seen: list[str] = []
    last: str | None = None
    cursor: str | None = None
    for _ in range(3):
        page = (await client.get("/v1/documents", params={"limit": 2} | ({"cursor": cursor} if cursor else {}))).json()
        seen += [document["name"] for document in page["data"]]
        last, cursor = cursor, page["nextCursor"]

    assert seen == [f"number {number}" for number in (4, 3, 2, 1, 0)]
    assert cursor is None
    refused = await client.get("/v1/documents", params={"q": "number", "cursor": last})
    assert refusal_of(refused) == (400, "invalid_cursor")


async def test_deleted_document_is_gone_until_it_is_restored(client: httpx.AsyncClient) -> None:
    """Nothing reads, lists or edits it meanwhile; afterwards it says what it said."""
    made = await _make(client, content="cod")
    path = f"/v1/documents/{made['id']}"

    assert (await client.delete(path)).status_code == 204
    assert refusal_of(await client.get(path)) == (404, "not_found")
    assert refusal_of(await client.patch(path, json={"content": "eel"})) == (404, "not_found")
    assert refusal_of(await client.get(f"{path}/history")) == (404, "not_found")
    assert refusal_of(await client.delete(path)) == (404, "not_found")
    assert await _found(client, "cod") == []
    for _ in range(2):
        assert (await client.post(f"{path}/restore")).json()["deletedAt"] is None
    assert (await client.get(path)).json()["content"] == "cod"


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": ""},
        {"name": "x" * 201},
        {"name": "a", "content": None},
        {"name": "a", "kind": "x"},
        {"name": "a\0"},
    ],
)
async def test_document_that_cannot_be_is_refused(client: httpx.AsyncClient, body: dict[str, object]) -> None:
    """With a code, and nothing is made."""
    assert refusal_of(await client.post("/v1/documents", json=body)) == (400, "invalid_request")
    assert (await client.get("/v1/documents")).json()["data"] == []


async def test_unknown_document_is_not_found(client: httpx.AsyncClient) -> None:
    """Whatever is asked of it."""
    path = f"/v1/documents/{new_id()}"
    for method, body in (("GET", None), ("PATCH", {"name": "a"}), ("PATCH", {"content": "a"}), ("DELETE", None)):
        assert refusal_of(await client.request(method, path, json=body)) == (404, "not_found")
    assert refusal_of(await client.post(f"{path}/restore")) == (404, "not_found")
