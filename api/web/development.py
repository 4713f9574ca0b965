"""A token without a sign-in, for the browser of whoever develops here: this machine's, on a page of this server."""

import re
from typing import Any

from litestar import Request, Response, post
from litestar.datastructures import State

from common.config import Settings
from common.devserver.mint_token import mint_development_token
from common.errors import ErrorCode, ThroughlineError
from common.peer import is_loopback, is_this_machine

_LOCAL_HOST = re.compile(r"(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?")


def has_development_token(settings: Settings) -> bool:
    """Whether this is a development system that listens on loopback alone, and signs tokens itself."""
    is_local = settings.host == "localhost" or is_loopback(settings.host)
    return settings.throughline_env == "development" and is_local and bool(settings.jwt_secret)


@post("/development/token", status_code=200, include_in_schema=False)
async def development_token(request: Request[Any, Any, State]) -> Response[dict[str, str]]:
    """Mints a token for a browser of this machine that shows a page of this very server.

    Another site's page gives itself away by its Origin, and a name that was made to point here (DNS rebinding) by its
    Host. What a proxy or a tunnel forwards may come from anybody.
    """
    if not _is_own_page_on_this_machine(request):
        raise ThroughlineError(ErrorCode.FORBIDDEN, "Only the page of this machine gets a token without a sign-in.")
    token = mint_development_token(request.app.state.settings)
    return Response({"token": token}, headers={"Cache-Control": "no-store"})


def _is_own_page_on_this_machine(request: Request[Any, Any, State]) -> bool:
    host = request.headers.get("host", "")
    return (
        is_this_machine(request.client.host if request.client else None, request.headers)
        and _LOCAL_HOST.fullmatch(host) is not None
        and request.headers.get("origin") == f"http://{host}"
    )
