"""The first minute: what `throughline dev` prints works when it is pasted, on the real API and worker."""

import asyncio
import json
import re
import shutil
import signal
import tempfile
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from playwright.async_api import expect

from common.devserver.child import Child, spawn
from tests.support.browser import running_browser, visitor
from tests.support.dev_server import DevServer, dev_server, is_gone
from tests.support.eventually import eventually

_ROOT = Path(__file__).resolve().parents[2]
_QUESTION = "Every word of this sentence comes back as an event of its own."
_ANSWER = f"Echo from agent: {_QUESTION}"


@pytest.fixture
async def dev() -> AsyncIterator[DevServer]:
    """The system as `make run` starts it, on an empty data folder."""
    with tempfile.TemporaryDirectory(prefix="throughline-e2e-") as folder:
        Path(folder).chmod(0o755)
        async with dev_server(Path(folder) / "data") as server:
            await server.until_ready()
            yield server


async def test_printed_commands_when_pasted_stream_and_resume(dev: DevServer, tmp_path: Path) -> None:
    """Tokens appear; a curl that is killed and called again with the last id goes on exactly there."""
    start, resume = _printed_commands(dev)
    first = tmp_path / "first"
    async with _pasted(start, first) as shell:
        await eventually(lambda: first.read_text().count('"type":"token"') >= 3, 20)
        [curl] = psutil.Process(shell.pid).children()
        curl.kill()
        await shell.wait(5)
    seen = _frames(first.read_text())

    [conversation] = [str(found["id"]) for found in await _list_conversations(dev)]
    second = tmp_path / "second"
    again = resume.replace("$CONVERSATION", conversation).replace("<id>", seen[-1][0])
    async with _pasted(f"TOKEN={dev.token}\n{again}", second) as shell:
        assert await shell.wait(20) == 0
    frames = seen + _frames(second.read_text())
    assert frames != seen

    assert "".join(event["content"] for _, event in frames if event["type"] == "token").strip() == _ANSWER
    assert [event["type"] for _, event in frames][-1] == "done"
    ids = [_number(identifier) for identifier, _ in frames]
    assert ids == sorted(set(ids))
    roles_and_texts = await _messages(dev, conversation)
    assert roles_and_texts == [("user", _QUESTION), ("assistant", _ANSWER)]


async def test_printed_link_opens_a_page_that_answers(dev: DevServer) -> None:
    """The link signs its browser in, and the bare address does too; the first message is answered without any key."""
    [token] = re.findall(rf"^{dev.address}/#token=(\S+)$", dev.output(), re.MULTILINE)
    async with running_browser() as browser:
        async with visitor(browser, dev.address, token) as by_link:
            await by_link.say("by the link")
            await expect(by_link.answer()).to_contain_text("Echo from agent: by the link")
        async with visitor(browser, dev.address) as by_address:
            await expect(by_address.page.get_by_role("link", name="by the link")).to_be_visible()
            await by_address.say("by the address")
            await expect(by_address.answer()).to_contain_text("Echo from agent: by the address")


async def test_dev_with_real_processes_leaves_nothing_when_killed(dev: DevServer) -> None:
    """`kill -9` ends the real API and worker with it."""
    processes = dev.processes()
    dev.child.send(signal.SIGKILL)
    await eventually(lambda: all(is_gone(process) for process in processes), 10)


async def test_dev_after_restart_has_its_conversations() -> None:
    """What was said before Ctrl-C is there after the next start, for the same kind of token."""
    with tempfile.TemporaryDirectory(prefix="throughline-e2e-") as folder:
        Path(folder).chmod(0o755)
        data = Path(folder) / "data"
        async with dev_server(data) as first:
            await first.until_ready()
            async with _client(first) as client:
                created = await client.post("/v1/conversations", json={"title": "kept"})
                assert created.status_code == 201
        async with dev_server(data) as second:
            await second.until_ready()
            [conversation] = await _list_conversations(second)
            assert conversation["title"] == "kept"


async def test_dev_with_absent_tools_module_ends_with_the_workers_words() -> None:
    """It never says that it is ready: it ends with status 1, and the last line says what to mend."""
    with tempfile.TemporaryDirectory(prefix="throughline-e2e-") as folder:
        Path(folder).chmod(0o755)
        async with dev_server(Path(folder) / "data", env={"TOOLS_MODULE": "no.such.module"}) as server:
            assert await server.until_ended() == 1
            last_line = server.output().splitlines()[-1]
            assert last_line.startswith("throughline: worker.1 cannot start: throughline worker: TOOLS_MODULE:")
            assert "No module named" in last_line
            assert "ready at" not in server.output()


@pytest.mark.parametrize(
    ("python", "message"),
    [
        ("no-such-python", "no-such-python: command not found; name a Python of 3.11 or newer"),
        ("false", "Python 3.11 or newer is needed"),
    ],
)
async def test_make_with_a_python_that_cannot_serve_says_so(tmp_path: Path, python: str, message: str) -> None:
    """A command that is not there is told from a Python that is too old; nothing is installed."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(_ROOT / name, tmp_path)
    make = await asyncio.create_subprocess_exec(
        "make", "run", f"PYTHON={python}", cwd=tmp_path, stdout=PIPE, stderr=PIPE
    )
    _, errors = await make.communicate()
    assert make.returncode == 2
    assert message in errors.decode()
    assert not (tmp_path / ".venv").exists()


def _printed_commands(dev: DevServer) -> tuple[str, str]:
    """The block that starts a stream, and the one that resumes it."""
    blocks = re.split(r"\n\s*\n", dev.output())
    start = next(block for block in blocks if block.startswith("TOKEN="))
    resume = next(block for block in blocks if "Last-Event-ID" in block and block.startswith("curl"))
    return start, resume


@asynccontextmanager
async def _pasted(script: str, output: Path) -> AsyncIterator[Child]:
    with output.open("wb") as file:
        # The empty last command keeps the shell from becoming its own last curl.
        shell = spawn(["/bin/sh", "-c", f"{script}\n:"], on_parent_death=signal.SIGKILL, stdout=file)
    try:
        yield shell
    finally:
        await shell.stop(signal.SIGKILL, 5)


def _frames(text: str) -> list[tuple[str, dict[str, Any]]]:
    """Ids and events of all frames that arrived as a whole."""
    return [(match[1], json.loads(match[2])) for match in re.finditer(r"id: (\S+)\ndata: (.*)\n\n", text)]


def _number(identifier: str) -> tuple[int, int]:
    attempt, n = identifier.rpartition(":")[2].split("-")
    return int(attempt), int(n)


def _client(dev: DevServer) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=dev.address, headers={"Authorization": f"Bearer {dev.token}"}, timeout=10)


async def _list_conversations(dev: DevServer) -> list[dict[str, Any]]:
    async with _client(dev) as client:
        answer = await client.get("/v1/conversations")
        assert answer.status_code == 200, answer.text
        return list(answer.json()["data"])


async def _messages(dev: DevServer, conversation: str) -> list[tuple[str, str]]:
    async with _client(dev) as client:
        answer = await client.get(f"/v1/conversations/{conversation}")
        return [(message["role"], message["content"].strip()) for message in answer.json()["messages"]]
