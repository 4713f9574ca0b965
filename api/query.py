"""Query parameters: those that an operation has, and no others. A misspelt filter would silently leave nothing out, and
so would `null`."""

from collections.abc import Iterator
from functools import cache
from typing import Any, get_args

from litestar import Request
from litestar.handlers import BaseRouteHandler
from litestar.params import QueryParameter

from api.errors import invalid

WORKSPACE_NAMES = frozenset({"workspaceId", "workspace_id"})
"""What names the workspace where no header can."""

_API = "/v1/"
_SHOWN = 64


async def check_parameters(request: "Request[Any, Any, Any]") -> None:
    """Runs before each handler, once its guards have let the request in. Raises `invalid_request`.

    Other projects' protocols (`/ai`, `/openai`) may say more than we know, as may probes and links to the page.
    """
    if not request.query_params or not request.scope["path_template"].startswith(_API):
        return
    known = known_parameters(request.route_handler)
    unknown = request.query_params.keys() - known
    if unknown:
        raise invalid(_describe(min(unknown), known - WORKSPACE_NAMES))
    for name in _valued_parameters(request.route_handler) & request.query_params.keys():
        if any(value.lower() == "null" for value in request.query_params.getall(name)):
            raise invalid(f"{name}: null is no value; leave it out")


@cache
def known_parameters(handler: BaseRouteHandler) -> frozenset[str]:
    """The names that an operation reads from its query."""
    return WORKSPACE_NAMES.union(name for name, _ in _parameters(handler))


@cache
def _valued_parameters(handler: BaseRouteHandler) -> frozenset[str]:
    """Those that hold no text: Litestar would read `null` as if they had been left out, and filter by nothing."""
    return frozenset(name for name, kinds in _parameters(handler) if str not in kinds)


def _parameters(handler: BaseRouteHandler) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Names, and what a value may be."""
    for field, parameter in handler.parsed_fn_signature.parameters.items():
        if isinstance(parameter.kwarg_definition, QueryParameter):
            yield parameter.kwarg_definition.name or field, get_args(parameter.annotation) or (parameter.annotation,)


def _describe(unknown: str, known: frozenset[str]) -> str:
    has = f"this operation has {', '.join(sorted(known))}" if known else "this operation has none"
    return f"{unknown[:_SHOWN]}: no such query parameter; {has}"
