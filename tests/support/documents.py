"""Documents as their clients know them: over HTTP, and where their rooms are."""

from typing import Any
from uuid import UUID

from tests.support.api_client import make_token
from tests.support.eventually import eventually
from tests.support.system import SECRET, Client


async def make_document(someone: Client, content: str = "", name: str = "Fish") -> str:
    """The id of a new document."""
    answer = await someone.http.post("/v1/documents", json={"name": name, "content": content})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def stored_text(someone: Client, document: str) -> str:
    """What the document says in the database."""
    answer = await someone.http.get(f"/v1/documents/{document}")
    assert answer.status_code == 200, answer.text
    return str(answer.json()["content"])


async def text_is_stored(someone: Client, document: str, text: str) -> None:
    """Waits until the database has this text."""

    async def stored() -> bool:
        assert await stored_text(someone, document) == text
        return True

    await eventually(stored)


async def ticket_for(someone: Client, document: str, user: str | None = None) -> str:
    """A ticket for the document's room; for another member of the workspace, where one is named."""
    token = None if user is None else token_of(someone.workspace_id, user=user)
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    answer = await someone.http.post("/v1/tickets", json={"documentId": document}, headers=headers)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["ticket"])


def token_of(workspace_id: UUID, role: str = "member", user: str = "alice", **claims: Any) -> str:
    """A token that every API of a running system accepts."""
    return make_token(SECRET, (workspace_id, role), user=user, **claims)


def room_of(url: str, document: str) -> str:
    """Where y-websocket connects to, at the API at `url`; it appends the name of the room, `/sync`."""
    return f"{url.replace('http', 'ws', 1)}/v1/documents/{document}"
