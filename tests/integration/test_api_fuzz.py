"""Requests made at random from the OpenAPI document: whatever they say, no answer is an error of ours."""

import json
import random
from typing import Any
from urllib.parse import quote

import httpx

from common.ids import new_id
from tests.support.api_client import make_conversation, post_message

ROUNDS = 25
TEXTS = (
    "",
    "x",
    "\x00",
    "ü",
    "\U0001f600",
    "%00",
    "'; --",
    "x" * 300,
    "../..",
    "null",
    "true",
    "-1",
    "1e9",
    "\u202e",
    " ",
)
NUMBERS = (0, 1, -1, 2**31, 2**63, 10**40, 0.5, -0.0, 1e308)


class Dice(random.Random):
    """Values for a schema: mostly what it asks for, sometimes anything at all."""

    def __init__(self, seed: int, schemas: dict[str, Any], ids: list[str]) -> None:
        super().__init__(seed)
        self._schemas = schemas
        self.ids = ids

    def value(self, schema: dict[str, Any], depth: int = 0) -> Any:
        if self.random() < 0.15:
            return self.anything(depth)
        if "$ref" in schema:
            schema = self._schemas[schema["$ref"].rpartition("/")[2]]
        for union in ("oneOf", "anyOf"):
            if union in schema:
                return self.value(self.choice(schema[union]), depth)
        if "enum" in schema:
            return self.choice(schema["enum"])
        kind = schema.get("type")
        match self.choice(kind) if isinstance(kind, list) else kind:
            case "object":
                properties = schema.get("properties", {})
                return {name: self.value(of, depth + 1) for name, of in properties.items() if self.random() < 0.6}
            case "array":
                return [self.value(schema.get("items", {}), depth + 1) for _ in range(self.randrange(3))]
            case "string":
                return self.choice(self.ids) if schema.get("format") == "uuid" else self.choice(TEXTS)
            case "integer" | "number":
                return self.choice(NUMBERS) if self.random() < 0.5 else self.randrange(1, 100)
            case "boolean":
                return self.random() < 0.5
            case _:
                return None

    def anything(self, depth: int = 0) -> Any:
        choices: list[Any] = [*TEXTS, *NUMBERS, None, True, False, *self.ids]
        if depth < 3:
            choices += [[self.anything(depth + 1)], {self.choice(TEXTS): self.anything(depth + 1)}]
        return self.choice(choices)


async def test_no_random_request_is_an_error_of_ours(client: httpx.AsyncClient) -> None:
    """Every operation with random ids, parameters, headers and bodies: below 500, and errors in the one form."""
    document = (await client.get("/schema/openapi.json")).json()
    conversation_id = await make_conversation(client)
    posted = await post_message(client, conversation_id)
    ids = [conversation_id, posted["message"]["id"], posted["run"]["id"], str(new_id())]
    dice = Dice(1, document["components"]["schemas"], ids)
    refused = accepted = 0
    for path, methods in document["paths"].items():
        if path.endswith("/stream"):
            continue
        for method, operation in methods.items():
            for _ in range(ROUNDS):
                request = _make(client, dice, method, path, operation)
                answer = await client.send(request)
                assert answer.status_code < 500, (method, str(request.url), request.content, answer.text)
                if answer.status_code >= 400:
                    assert set(answer.json()) == {"error"}
                refused += answer.status_code >= 400
                accepted += answer.status_code < 400
    assert refused > 100
    assert accepted > 100


def _make(client: httpx.AsyncClient, dice: Dice, method: str, path: str, operation: dict[str, Any]) -> httpx.Request:
    url, params, headers = path, dict[str, str](), dict[str, str]()
    for parameter in operation.get("parameters", []):
        value = str(dice.value(parameter.get("schema", {})))
        if parameter["in"] == "path":
            value = dice.choice(dice.ids) if dice.random() < 0.8 else value
            url = url.replace(f"{{{parameter['name']}}}", quote(value, safe="", errors="replace") or "x")
        elif dice.random() < 0.4:
            (params if parameter["in"] == "query" else headers)[parameter["name"]] = value
    body = None
    if "requestBody" in operation:
        [content] = operation["requestBody"]["content"].values()
        body = json.dumps(dice.value(content["schema"]))
        headers["Content-Type"] = "application/json"
    sent = [(name.encode(), _header(value)) for name, value in headers.items()]
    return client.build_request(method, url, params=params, headers=sent, content=body)


def _header(value: str) -> bytes:
    """What a client can send at all: no NUL, no space at the ends."""
    return value.encode("utf-8", "replace").replace(b"\x00", b"0").strip()
