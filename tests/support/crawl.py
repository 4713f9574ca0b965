"""Every operation of a running application, schema or not, and what it takes that may name something of a workspace."""

from collections.abc import Iterator
from typing import Any, NamedTuple, get_args

import msgspec
from litestar import Litestar
from litestar.params import HeaderParameter, QueryParameter
from litestar.routes import HTTPRoute, WebSocketRoute

OPEN = ("/health/", "/metrics", "/schema", "/assets/", "/development/", "/ops", "/v1/ops/")
"""What belongs to no workspace. So does the page itself, `/`. Who may see `/v1/ops` is shown by
test_operations_access.py."""


class Operation(NamedTuple):
    """A method at a path; `places` are where it takes something by name: `("query", "limit")`."""

    method: str
    path: str
    ids: tuple[str, ...]
    places: tuple[tuple[str, str], ...]
    body: type | None

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def body_name(self) -> str | None:
        """The name of the body's type."""
        return None if self.body is None else self.body.__name__


def operations(app: Litestar) -> list[Operation]:
    """All that ask for a workspace."""
    return [
        Operation(method, route.path_format, tuple(route.path_parameters), tuple(_places(handler)), _body(handler))
        for route in app.routes
        if isinstance(route, HTTPRoute) and route.path != "/" and not route.path_format.startswith(OPEN)
        for method, (handler, _) in route.route_handler_map.items()
        if method != "OPTIONS"
    ]


def sockets(app: Litestar) -> set[str]:
    """The paths of all WebSockets."""
    return {route.path_format for route in app.routes if isinstance(route, WebSocketRoute)}


def _places(handler: Any) -> Iterator[tuple[str, str]]:
    for field, parameter in handler.parsed_fn_signature.parameters.items():
        match parameter.kwarg_definition:
            case QueryParameter(name=name):
                yield "query", name or field
            case HeaderParameter(name=name):
                yield "header", name or field
    body = _body(handler)
    if body is not None:
        for of_body in msgspec.structs.fields(body):
            yield "body", of_body.encode_name


def _body(handler: Any) -> type | None:
    declared = handler.parsed_fn_signature.parameters.get("data")
    if declared is None:
        return None
    annotation = declared.annotation
    found: type = next((part for part in get_args(annotation) if part is not type(None)), annotation)
    return found
