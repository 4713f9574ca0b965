"""The web pages, `/` and `/ops`: what `throughline page` has built from `web/`, read once, and served from memory."""

import hashlib
import mimetypes
from pathlib import Path
from typing import Any, NamedTuple

from litestar import Request, Response, get
from litestar.types import ControllerRouterHandler

from api.headers import PROTECTION
from api.web.development import development_token, has_development_token
from common.config import Settings

_DIST = Path(__file__).with_name("dist")
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        # No text becomes HTML or a script, not even by mistake.
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
_HEADERS = {
    **PROTECTION,
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
}
_PAGES = {"/": "index.html", "/ops": "operations.html"}
_FOREVER = "public, max-age=31536000, immutable"
_NOT_BUILT = b"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Throughline</title>
<h1>The page is not built</h1>
<p>The server is up: its API is described at <a href="/schema">/schema</a>.
<p>Build the page with <code>make page</code> in a checkout of the project (it needs npm's registry once), and start
the server again.
"""


class _File(NamedTuple):
    content: bytes
    media_type: str
    caching: str


def page_routes(settings: Settings) -> list[ControllerRouterHandler]:
    """A route for each file of the page, in development and with WEB_PAGE; else none.

    There is no route with a path in it, so nothing else can be asked for. In a development system that only this
    machine reaches there is one more, which signs its browser in.
    """
    routes: list[ControllerRouterHandler] = []
    if settings.web_page or settings.throughline_env == "development":
        routes += [_route(path, file) for path, file in _read(_DIST).items()]
        if has_development_token(settings):
            routes.append(development_token)
    return routes


def _read(dist: Path) -> dict[str, _File]:
    """The files by the path that each is served at. Names of assets hold a hash of what is in them."""
    files = {path: _html(dist / name) for path, name in _PAGES.items()}
    for asset in sorted(dist.glob("assets/*")):
        media_type = mimetypes.guess_type(asset.name)[0] or "application/octet-stream"
        files[f"/assets/{asset.name}"] = _File(asset.read_bytes(), media_type, _FOREVER)
    return files


def _html(file: Path) -> _File:
    return _File(file.read_bytes() if file.is_file() else _NOT_BUILT, "text/html", "no-cache")


def _route(path: str, file: _File) -> ControllerRouterHandler:
    tag = f'"{hashlib.sha256(file.content).hexdigest()[:32]}"'
    headers = {**_HEADERS, "Cache-Control": file.caching, "ETag": tag}

    @get(path, include_in_schema=False)
    async def serve(request: Request[Any, Any, Any]) -> Response[bytes]:
        known = request.headers.get("if-none-match", "")
        if tag in (part.strip().removeprefix("W/") for part in known.split(",")):
            return Response(b"", status_code=304, headers=headers)
        return Response(file.content, media_type=file.media_type, headers=headers)

    return serve
