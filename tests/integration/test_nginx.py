"""The nginx of the documentation in front of a real API."""

import asyncio
import os
import re
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import httpx
import pytest

from api.relay.sse import HEARTBEAT_S
from common.devserver.child import spawn
from common.devserver.readiness import free_port, last_lines
from tests.support.api_client import LiveApi
from tests.support.eventually import eventually
from tests.support.peer import peer
from tests.support.player import Player
from tests.support.raw_stream import RawStream

_PROGRAM = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
_PAGE = Path(__file__).resolve().parents[2] / "docs/operations/load-balancers.md"
[_DOCUMENTED] = re.findall(r"```nginx\n(.*?)```", _PAGE.read_text("utf-8"), re.DOTALL)
_AROUND = """
daemon off;
master_process off;
pid {folder}/pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
{documented}
}}
"""
needs_nginx = pytest.mark.skipif(_PROGRAM is None, reason="nginx is not installed")


@pytest.fixture
async def balancer(api: LiveApi) -> AsyncIterator[str]:
    """Where nginx listens in front of the API."""
    assert _PROGRAM is not None
    address = f"127.0.0.1:{free_port()}"
    documented = _DOCUMENTED.replace("127.0.0.1:8000", urlsplit(api.url).netloc).replace("127.0.0.1:8080", address)
    with tempfile.TemporaryDirectory(prefix="throughline-nginx-") as name:
        folder = Path(name)
        config, log = folder / "nginx.conf", folder / "log"
        config.write_text(_AROUND.format(folder=folder, documented=documented))
        with log.open("ab") as output:
            child = spawn(
                [_PROGRAM, "-p", folder, "-e", "stderr", "-c", config], on_parent_death=signal.SIGKILL, stdout=output
            )
        try:
            async with httpx.AsyncClient(trust_env=False) as client:

                async def answers() -> bool:
                    assert child.returncode is None, last_lines(log)
                    try:
                        return (await client.get(f"http://{address}/health/ready")).status_code == 200
                    except httpx.TransportError:
                        return False

                await eventually(answers, 20)
            yield f"http://{address}"
        finally:
            await child.stop(signal.SIGKILL, 5)


@needs_nginx
async def test_each_event_passes_as_it_comes(balancer: str, api: LiveApi, workspace_id: UUID) -> None:
    """A client behind nginx has read an event before the next one is told."""
    resources = api.app.state.resources
    player = await Player.begin(resources.pool, resources.log, workspace_id)
    member = await api.member(workspace_id)
    headers = {"authorization": member.headers["authorization"]}
    stream = await RawStream.open(f"{balancer}/v1/runs/{player.id}/stream", headers)
    for word in ("one", "two", "three"):
        await player.tell(word)
        await stream.read_until(word.encode(), 5)
    stream.close()


@needs_nginx
async def test_documents_are_edited_through_nginx(balancer: str, client: httpx.AsyncClient) -> None:
    """The upgrade passes, and what one has typed behind nginx the other one reads."""
    document = (await client.post("/v1/documents", json={"name": "Fish"})).json()["id"]
    headers: dict[str, Any] = {"additional_headers": {"authorization": client.headers["authorization"]}}
    async with peer(balancer, document, **headers) as ada, peer(balancer, document, **headers) as bob:
        await ada.synced.wait()
        ada.type("salmon")
        await bob.shows("salmon")


@needs_nginx
async def test_requests_pass_with_the_host_that_was_asked_for(balancer: str, client: httpx.AsyncClient) -> None:
    """Side by side, over connections to the API that are kept."""
    async with httpx.AsyncClient(base_url=balancer, headers=client.headers, trust_env=False) as behind:
        answers = await asyncio.gather(*(behind.post("/v1/conversations", json={}) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {201}


def test_documented_timeouts_are_longer_than_the_silence_of_streams() -> None:
    """Or nginx would cut every stream whose model thinks for a while."""
    seconds = [int(found) for found in re.findall(r"proxy_(?:read|send)_timeout (\d+)s", _DOCUMENTED)]
    assert len(seconds) == 2
    assert min(seconds) >= 2 * HEARTBEAT_S


@needs_nginx
async def test_figures_are_not_for_who_comes_through(balancer: str, api: LiveApi) -> None:
    """nginx on the API's own machine is not taken for the machine itself."""
    async with httpx.AsyncClient(trust_env=False) as anybody:
        assert (await anybody.get(f"{api.url}/metrics")).status_code == 200
        assert (await anybody.get(f"{balancer}/metrics")).status_code == 401
