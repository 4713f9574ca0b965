"""How the web page is served: what a browser is told about it, and what nobody gets."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from api.web import page
from common.config import Settings
from tests.support.api_client import LiveApi, live_api, refusal_of

_SCRIPT = "index-0aB_-9xy.js"
_FILES = {
    "index.html": '<!doctype html><script type="module" src="/assets/index-0aB_-9xy.js"></script>',
    "operations.html": "<!doctype html><title>Operations</title>",
    f"assets/{_SCRIPT}": "console.log('hello')",
    "assets/index-1.css": "body { margin: 0 }",
    "assets/icon-2.svg": "<svg/>",
    ".tried": "",
    "secret.txt": "not an asset",
}


@pytest.fixture(autouse=True)
def dist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page as the build leaves it, with something beside it that is nobody's business."""
    folder = tmp_path / "web" / "dist"
    for name, text in _FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (tmp_path / "web" / "page.py").write_text("the server's own source")
    monkeypatch.setattr(page, "_DIST", folder)
    return folder


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[LiveApi]:
    """A development server with that page."""
    async with live_api(settings) as api:
        yield api


@pytest.fixture
async def nobody(api: LiveApi) -> httpx.AsyncClient:
    """A client without a token."""
    return await api.client()


def with_settings(settings: Settings, **changes: Any) -> AbstractAsyncContextManager[LiveApi]:
    """A server with other settings."""
    return live_api(msgspec.structs.replace(settings, **changes))


@pytest.mark.parametrize(("path", "name"), [("/", "index.html"), ("/ops", "operations.html")])
async def test_page_comes_with_a_policy_that_allows_only_its_own_files(
    nobody: httpx.AsyncClient, path: str, name: str
) -> None:
    """No inline script or style, no other server, no frame around it, and no text that becomes HTML."""
    answer = await nobody.get(path)

    assert answer.status_code == 200
    assert answer.text == _FILES[name]
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(re.findall(r"([a-z-]+) ([^;]+)", answer.headers["content-security-policy"]))
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self'",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"


async def test_page_is_asked_for_each_time_and_sent_when_it_changed(nobody: httpx.AsyncClient) -> None:
    """A browser that has it is told so with 304, and gets the new one after a release."""
    first = await nobody.get("/")
    assert first.headers["cache-control"] == "no-cache"

    again = await nobody.get("/", headers={"If-None-Match": f'"old", W/{first.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["etag"] == first.headers["etag"]
    other = await nobody.get("/", headers={"If-None-Match": '"another"'})
    assert other.status_code == 200


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        (_SCRIPT, "text/javascript; charset=utf-8"),
        ("index-1.css", "text/css; charset=utf-8"),
        ("icon-2.svg", "image/svg+xml"),
    ],
)
async def test_asset_is_kept_for_ever(nobody: httpx.AsyncClient, name: str, media_type: str) -> None:
    """Its name changes with what is in it, so nobody needs to ask again; it is taken for nothing but what it is."""
    answer = await nobody.get(f"/assets/{name}")

    assert answer.text == _FILES[f"assets/{name}"]
    assert answer.headers["content-type"] == media_type
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "content-security-policy" in answer.headers


@pytest.mark.parametrize(
    "path",
    [
        "/assets/../../page.py",
        "/assets/%2e%2e/%2e%2e/page.py",
        "/assets/..%2f..%2fpage.py",
        "/assets/..\\..\\page.py",
        "/../page.py",
        "/assets/../secret.txt",
        "/secret.txt",
        "/.tried",
        "/assets",
        "/assets/",
        "/assets//etc/passwd",
        "//etc/passwd",
        f"/assets/{_SCRIPT}%00",
        "/dist/index.html",
        "/anything/else",
    ],
)
async def test_path_of_no_asset_is_the_apis_404(api: LiveApi, path: str) -> None:
    """Whatever the path is made of, no other file is read, and the error has the API's one form."""
    head, body = await _get_raw(api, path)

    assert " 404 " in head.splitlines()[0]
    error = msgspec.json.decode(body)["error"]
    assert error["code"] == "not_found"


async def test_page_is_part_of_no_production_system_unless_it_is_wanted(settings: Settings) -> None:
    """Without WEB_PAGE there is nothing at `/`; with it there is the page, and no token for the asking."""
    async with with_settings(settings, throughline_env="production") as api:
        nobody = await api.client()
        assert refusal_of(await nobody.get("/")) == (404, "not_found")
        assert refusal_of(await nobody.get("/ops")) == (404, "not_found")
        assert refusal_of(await nobody.get(f"/assets/{_SCRIPT}")) == (404, "not_found")
    async with with_settings(settings, throughline_env="production", web_page=True) as api:
        nobody = await api.client()
        assert (await nobody.get("/")).status_code == 200
        assert refusal_of(await nobody.post("/development/token", headers=_own(api))) == (404, "not_found")


async def test_page_that_is_not_built_says_how_to_build_it(settings: Settings, dist: Path) -> None:
    """The server works without it, and `/` is a plain page under the same policy."""
    (dist / "index.html").unlink()
    async with live_api(settings) as api:
        nobody = await api.client()
        answer = await nobody.get("/")
        assert answer.status_code == 200
        assert "make page" in answer.text
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert (await nobody.get("/health/live")).status_code == 200


async def test_page_is_no_part_of_the_api(nobody: httpx.AsyncClient) -> None:
    """The OpenAPI document names neither the page nor its files nor the development token."""
    paths = (await nobody.get("/schema/openapi.json")).json()["paths"]

    assert not [path for path in paths if path in ("/", "/ops") or path.startswith(("/assets", "/development"))]
    assert refusal_of(await nobody.post("/")) == (405, "method_not_allowed")


async def test_development_token_opens_the_api(api: LiveApi, nobody: httpx.AsyncClient) -> None:
    """The page of a development server on this machine works at once; no cache keeps the token."""
    answer = await nobody.post("/development/token", headers=_own(api))

    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    developer = await api.client(answer.json()["token"])
    assert (await developer.post("/v1/conversations", json={})).status_code == 201
    assert (await developer.get("/v1/ops/workspaces")).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": ""},
        {"Origin": "http://localhost:5500"},
        {"Host": "evil.example", "Origin": "http://evil.example"},
        {"Host": "127.0.0.1.evil.example", "Origin": "http://127.0.0.1.evil.example"},
        {"Host": "evil.example"},
        {"X-Forwarded-For": "127.0.0.1"},
        {"X-Forwarded-Host": "throughline.example"},
        {"Forwarded": "for=127.0.0.1"},
        {"Via": "1.1 proxy"},
    ],
    ids=str,
)
async def test_development_token_is_for_nobody_elses_page(settings: Settings, headers: dict[str, str]) -> None:
    """Not for another site, not for a name that was made to point here, not through a proxy; not even if its origin
    may call the API."""
    async with with_settings(settings, cors_origins=("http://localhost:5500",)) as api:
        nobody = await api.client()
        answer = await nobody.post("/development/token", headers={**_own(api), **headers})
    assert refusal_of(answer) == (403, "forbidden")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com"])
async def test_development_token_needs_a_server_that_only_this_machine_reaches(settings: Settings, host: str) -> None:
    """Where others can reach the port there is no such path."""
    async with with_settings(settings, host=host) as api:
        nobody = await api.client()
        answer = await nobody.post("/development/token", headers=_own(api))
    assert refusal_of(answer) == (404, "not_found")


def _own(api: LiveApi) -> dict[str, str]:
    """What a browser sends from the page of this server."""
    return {"Origin": api.url}


async def _get_raw(api: LiveApi, path: str) -> tuple[str, bytes]:
    """Head and body of the answer to a path that no client library has tidied up."""
    port = int(api.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.decode(), body
