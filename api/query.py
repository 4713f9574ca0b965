"""Query parameters: those that an operation has, and no others. A misspelt filter would silently leave nothing out."""

from functools import cache
from typing import Any

from litestar import Request
from litestar.handlers import BaseRouteHandler
from litestar.params import QueryParameter

from api.errors import invalid

WORKSPACE_NAMES = frozenset({"workspaceId", "workspace_id"})
"""What names the workspace where no header can."""

_API = "/v1/"
_SHOWN = 64


async def refuse_unknown_parameters(request: "Request[Any, Any, Any]") -> None:
    """Runs before each handler, once its guards have let the request in. Raises `invalid_request`.

    Other projects' protocols (`/ai`, `/openai`) may say more than we know, as may probes and links to the page.
    """
    if request.scope["path"].startswith(_API):
        unknown = request.query_params.keys() - known_parameters(request.route_handler)
        if unknown:
            raise invalid(_describe(min(unknown), known_parameters(request.route_handler) - WORKSPACE_NAMES))


@cache
def known_parameters(handler: BaseRouteHandler) -> frozenset[str]:
    """The names that an operation reads from its query."""
    own = (
        (parameter.kwarg_definition.name or field)
        for field, parameter in handler.parsed_fn_signature.parameters.items()
        if isinstance(parameter.kwarg_definition, QueryParameter)
    )
    return WORKSPACE_NAMES.union(own)


def _describe(unknown: str, known: frozenset[str]) -> str:
    has = f"this operation has {', '.join(sorted(known))}" if known else "this operation has none"
    return f"{unknown[:_SHOWN]}: no such query parameter; {has}"
