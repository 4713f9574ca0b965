"""OpenAI's Responses over plain HTTP: what is asked for, and what is written."""

from typing import Any
from uuid import UUID

import asyncpg
import httpx

RESPONSES = "/openai/v1/responses"


async def respond(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    """A response that is begun in the background."""
    answer = await client.post(RESPONSES, json={"input": "hello", "background": True, **fields})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def refusal_of(answer: httpx.Response) -> tuple[int, str, str | None]:
    """Status, code and param of an error in OpenAI's form."""
    body = answer.json()
    assert set(body) == {"error"}, body
    assert set(body["error"]) == {"message", "type", "param", "code"}, body
    assert body["error"]["message"]
    return answer.status_code, body["error"]["code"], body["error"]["param"]


def run_of(response: dict[str, Any]) -> UUID:
    """The id of its run."""
    return UUID(response["id"].removeprefix("resp_"))


def conversation_of(response: dict[str, Any]) -> UUID:
    """The id of its conversation."""
    return UUID(response["conversation"]["id"].removeprefix("conv_"))


async def written(database_url: str) -> dict[str, int]:
    """How many rows there are of what a request can write."""
    connection = await asyncpg.connect(database_url)
    try:
        tables = ("conversations", "messages", "runs", "idempotency_keys")
        return {table: await connection.fetchval(f"select count(*) from {table}") for table in tables}
    finally:
        await connection.close()
