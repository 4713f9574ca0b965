"""The shapes of what one process writes and another reads, as JSON schemas; and how two of them differ."""

from collections.abc import Mapping
from typing import Any

import msgspec

from common.model.events import Event
from common.model.messages import AgentSettings, RunError, ToolCallRequest, Usage
from common.store.catalogue import Offers

WIRE: dict[str, Any] = {
    "events": Event,
    "runs.settings": AgentSettings,
    "runs.error": RunError,
    "runs.usage": Usage,
    "messages.tool_calls": list[ToolCallRequest],
    "catalogue.offers": Offers,
}
"""What the log and the columns of type jsonb hold."""
_WORDING = ("title", "description")


def shapes() -> dict[str, Any]:
    """Today's, by the names in WIRE: the parts of each, `root` being the whole."""
    return {name: shape(kind) for name, kind in WIRE.items()}


def shape(kind: Any) -> dict[str, Any]:
    """One type, and the types that it is made of."""
    (root,), parts = msgspec.json.schema_components([kind], ref_template="{name}")
    return {name: _plain(part) for name, part in {"root": root, **parts}.items()}


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Why processes with these two shapes misunderstand each other, one way or the other; nothing where they do not.

    A new field that may be left out is no difference: who does not know it ignores it, unless that is forbidden.
    """
    problems = []
    for name, part in before.items():
        problems += _differences(part, after.get(name), name)
    return problems


def _differences(before: Any, after: Any, place: str) -> list[str]:
    if not isinstance(before, dict) or not isinstance(after, dict):
        return [] if before == after else [f"{place}: {before} became {after}"]
    open_to_more = place.endswith(("/properties", "/mapping"))
    problems = []
    for name in sorted(before.keys() | after.keys()):
        if name in before or not open_to_more:
            problems += _differences(before.get(name), after.get(name), f"{place}/{name}")
    if before.get("additionalProperties") is False and before["properties"].keys() < after["properties"].keys():
        problems.append(f"{place}: more fields, where others than {sorted(before['properties'])} are refused")
    return problems


def _plain(schema: Any) -> Any:
    """Without its wording, and with what has no order in an order."""
    if isinstance(schema, dict):
        return {
            name: {field: _plain(kind) for field, kind in part.items()} if name == "properties" else _plain(part)
            for name, part in schema.items()
            if name not in _WORDING
        }
    if isinstance(schema, list):
        return sorted(map(_plain, schema), key=repr)
    return schema
