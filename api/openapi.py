"""The OpenAPI document as it is served: Litestar's description of the routes, with the shapes as msgspec knows them.

Litestar takes a field with a default for one that may be missing, and says nothing of what an SSE stream holds.
"""

import re
from collections.abc import Callable, Sequence
from inspect import cleandoc
from typing import Any, get_args

import msgspec
from litestar import Request
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.types import Method
from litestar.types.internal_types import PathParameterDefinition

from common.model.answers import Accepted, Alive, ConversationDetail, ErrorAnswer, Health, Page, Ticket
from common.model.documents import Document, DocumentChange, DocumentDetail, DocumentEdit, NewDocument
from common.model.events import Event
from common.model.messages import Agent, Conversation, Message, Run
from common.model.operations import FailedRun, OperationsSummary, PastMinute, Requeue, WorkspaceUse
from common.model.requests import (
    AgentChange,
    ConversationChange,
    MessageEdit,
    NewAgent,
    NewConversation,
    NewMessage,
    NewTicket,
    Regeneration,
)
from common.model.usage import UsageReport
from common.store.catalogue import ProviderOffer, ToolOffer

Json = dict[str, Any]

_BODIES = (
    *(NewAgent, AgentChange, NewConversation, ConversationChange, NewMessage, MessageEdit, Regeneration, NewTicket),
    *(NewDocument, DocumentChange),
)
_ANSWERS = (
    *(Page[Agent], Page[Conversation], Page[Message], Page[Run], Page[ProviderOffer], Page[ToolOffer]),
    *(Page[Document], Page[DocumentEdit], DocumentDetail),
    *(ConversationDetail, Accepted, Ticket, UsageReport, Health, Alive),
    *(OperationsSummary, Page[PastMinute], Page[FailedRun], Page[WorkspaceUse], Requeue),
)
_EVENTS = get_args(Event)
_EVENT_NAMES = frozenset(event.__name__ for event in _EVENTS)
_REF = "#/components/schemas/"
_EVENT = (
    "What the `data` of a frame holds. A client ignores a `type` that it does not know. "
    "Fields that are empty are left out, never null."
)
_STREAM = {
    "type": "string",
    "contentMediaType": "text/event-stream",
    "contentSchema": {"$ref": f"{_REF}Event"},
    "description": "Frames of an `id` and one line of `data`, which is an `Event` as JSON.",
}


class JsonDocument(JsonRenderPlugin):
    """Serves the document as JSON, made once: it is open to everybody and never changes."""

    _rendered: bytes | None = None

    def render(self, request: "Request[Any, Any, Any]", openapi_schema: Json) -> bytes:
        """The document."""
        if self._rendered is None:
            self._rendered = super().render(request, complete(openapi_schema))
        return self._rendered


def complete(document: Json) -> Json:
    """Litestar's document with our shapes; `document` itself is left as it is."""
    components = {**document["components"], "schemas": _schemas()}
    paths = {
        path: {method: _operation(operation) for method, operation in methods.items()}
        for path, methods in document["paths"].items()
    }
    completed: Json = _renamed({**document, "paths": paths, "components": components})
    return completed


def operation_id(handler: Any, _: Method, __: "list[str | PathParameterDefinition]") -> str:
    """`list_agents` becomes `listAgents`."""
    first, *rest = handler.handler_name.split("_")
    return str(first + "".join(word.title() for word in rest))


def _operation(operation: Json) -> Json:
    description = " ".join(operation["description"].split())
    first_sentence = re.split(r"(?<=\.)\s", description, maxsplit=1)[0]
    parameters = [{**given, "schema": _without_null(given["schema"])} for given in operation.get("parameters", [])]
    responses = {status: _response(response) for status, response in sorted(operation["responses"].items())}
    return {
        **operation,
        "summary": first_sentence,
        "description": description,
        "parameters": parameters,
        "responses": responses,
    }


def _response(response: Json) -> Json:
    content = {
        media_type: {**body, "schema": _STREAM if media_type == "text/event-stream" else body["schema"]}
        for media_type, body in response.get("content", {}).items()
    }
    said = {word: part for word, part in response.items() if word != "headers"}  # The same for all, and for browsers.
    return {**said, "content": content} if content else said


def _schemas() -> Json:
    """Every shape by its name; one that is part of several is as the first of these has it."""
    shapes = {
        **_components((*_EVENTS, ErrorAnswer), _sparse),
        **_components(_ANSWERS, _full),
        **_components(_BODIES, lambda body: body),
        "Event": _event(),
    }
    return {_name(name): shapes[name] for name in sorted(shapes, key=_name)}


def _components(shapes: Sequence[Any], finish: Callable[[Json], Json]) -> Json:
    _, components = msgspec.json.schema_components(shapes, ref_template=_REF + "{name}")
    return {name: finish(_described(schema)) for name, schema in components.items()}


def _described(schema: Json) -> Json:
    described = {name: part for name, part in schema.items() if name != "title"}
    if "description" in schema:
        described["description"] = " ".join(cleandoc(schema["description"]).split())
    if "properties" in schema:
        described["properties"] = {name: _lifted(of) for name, of in schema["properties"].items()}
    return {"type": "string", **described} if "enum" in schema else described


def _lifted(schema: Json) -> Json:
    """A description of the part that is not null, as one of the whole."""
    for part in schema.get("anyOf", []):
        if "description" in part and "description" not in schema:
            bare = {word: said for word, said in part.items() if word != "description"}
            parts = [bare if other is part else other for other in schema["anyOf"]]
            return {"description": part["description"], **schema, "anyOf": parts}
    return schema


def _full(schema: Json) -> Json:
    """An answer: every field is there."""
    if "properties" not in schema:
        return schema
    properties = {
        name: {word: part for word, part in of.items() if word != "default"}
        for name, of in schema["properties"].items()
    }
    return {**schema, "properties": properties, "required": list(properties)}


def _sparse(schema: Json) -> Json:
    """What leaves out its empty fields: one that need not be there is never null."""
    required = schema.get("required", [])
    properties = {
        name: of if name in required else _without_null({word: part for word, part in of.items() if word != "default"})
        for name, of in schema.get("properties", {}).items()
    }
    return {**schema, "properties": properties} if properties else schema


def _event() -> Json:
    refs = {event.__struct_config__.tag: f"{_REF}{event.__name__}" for event in _EVENTS}
    return {
        "description": _EVENT,
        "oneOf": [{"$ref": ref} for ref in refs.values()],
        "discriminator": {"propertyName": "type", "mapping": refs},
    }


def _without_null(schema: Json) -> Json:
    """The schema of a value that is there, made of the one that allows null."""
    for union in ("oneOf", "anyOf"):
        parts = [part for part in schema.get(union, []) if part != {"type": "null"}]
        if parts:
            rest = {word: part for word, part in schema.items() if word != union}
            return {**parts[0], **rest} if len(parts) == 1 else {**rest, union: parts}
    return schema


def _renamed(value: Any) -> Any:
    match value:
        case str() if value.startswith(_REF):
            return _REF + _name(value.removeprefix(_REF))
        case dict():
            return {word: _renamed(part) for word, part in value.items()}
        case list():
            return [_renamed(part) for part in value]
    return value


def _name(name: str) -> str:
    """`AgentPage` for `Page[Agent]`, `StepEvent` for the event `Step`."""
    if name in _EVENT_NAMES:
        return f"{name}Event"
    page = re.fullmatch(r"Page_(?:.*\.)?(\w+)_", name)
    return f"{page[1]}Page" if page else name
