"""`throughline dev` supervises: nothing is left behind, what dies is started again, data stays.

The commands here are small programs in a Procfile of the tests', so that only the supervision is under test.
"""

import asyncio
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import httpx
import psutil
import pytest

from common.config import load_settings
from common.devserver.readiness import is_ready
from common.store.catalogue import Offers, upsert_offers
from common.store.database import Pool, open_pool
from tests.support.dev_server import DevServer, dev_server, is_gone
from tests.support.eventually import eventually
from tests.support.servers import Servers

_WEB = """
import http.server, os, signal, sys

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(os.environ[self.path[1:]].encode() if self.path[1:] in os.environ else b"%d" % os.getpid())

    def log_message(self, *_):
        pass

def leave(*_):
    print("web leaves")
    sys.exit(0)

signal.signal(signal.SIGTERM, leave)
http.server.HTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Answer).serve_forever()
"""
_WORKER = """
import asyncio, os, signal, socket, sys
from common.config import load_settings
from common.store.catalogue import Offers, upsert_offers
from common.store.database import open_pool

async def offer():
    async with await open_pool(load_settings(), size=1) as pool:
        await upsert_offers(pool, f"{socket.gethostname()}:{os.getpid()}:", Offers())

if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, lambda *_: print("worker stays"))
if "misconfigured" in sys.argv:
    sys.exit(print("no good: FLAVOUR") or 2)
print("worker is up")
if "silent" not in sys.argv:
    asyncio.run(offer())
while True:
    signal.pause()
"""


@pytest.fixture
def data() -> Iterator[Path]:
    """A data folder that Postgres can enter when root runs it as somebody else."""
    with tempfile.TemporaryDirectory(prefix="throughline-e2e-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder) / "data"


@pytest.fixture
def procfile(tmp_path: Path) -> Path:
    """A Procfile with a small web process and a small worker."""
    (tmp_path / "web.py").write_text(_WEB)
    (tmp_path / "worker.py").write_text(_WORKER)
    path = tmp_path / "Procfile"
    path.write_text(
        f"release: throughline migrate\nweb: python {tmp_path}/web.py\nworker: python {tmp_path}/worker.py\n"
    )
    return path


async def test_dev_on_empty_folder_runs_everything(data: Path, procfile: Path) -> None:
    """It starts servers, migrates, starts each command, and prints the address, a token and a curl line."""
    async with dev_server(data, "--workers", "2", "--procfile", str(procfile)) as dev:
        await dev.until_ready()
        output = dev.output()
        assert "applied 0001_agents_conversations_runs.sql" in output
        await eventually(lambda: dev.output().count("worker is up") == 2)
        assert f"curl -N {dev.address}/v1/conversations/$CONVERSATION/messages" in output
        assert await _get(dev, "THROUGHLINE_ENV") == "development"
        assert (data / "secret").stat().st_mode & 0o777 == 0o600
        assert await _get(dev, "JWT_SECRET") == (data / "secret").read_text()


async def test_dev_on_sigterm_stops_all_in_order(data: Path, procfile: Path) -> None:
    """API and workers may say goodbye, then the servers end; the exit status is 0 and nothing is left."""
    async with dev_server(data, "--procfile", str(procfile)) as dev:
        await dev.until_ready()
        processes = dev.processes()
        dev.child.send(signal.SIGTERM)
        assert await dev.until_ended() == 0
        assert "web         | web leaves" in dev.output()
        assert all(is_gone(process) for process in processes)
        assert "database system is shut down" in (data / "postgres.log").read_text()
        assert "ready to exit" in (data / "valkey.log").read_text()


@pytest.mark.slow
async def test_dev_on_second_interrupt_kills_what_does_not_leave(data: Path, procfile: Path) -> None:
    """A process that ignores SIGTERM is waited for, until Ctrl-C is pressed again."""
    procfile.write_text(procfile.read_text().replace("worker.py", "worker.py stubborn"))
    async with dev_server(data, "--procfile", str(procfile)) as dev:
        await dev.until_ready()
        dev.child.send(signal.SIGINT)
        await dev.until_printed("stopping: waiting up to 5 s for current steps")
        await dev.until_printed("worker stays")
        dev.child.send(signal.SIGINT)
        started = time.monotonic()
        assert await dev.until_ended() == 0
        assert time.monotonic() - started < 10


@pytest.mark.slow
async def test_dev_says_how_long_its_own_workers_drain(data: Path, procfile: Path) -> None:
    """WORKER_DRAIN_S is 5 for who waits at a terminal, unless it is set; each process and the message agree."""
    for env, seconds in (({}, "5"), ({"WORKER_DRAIN_S": "2.5"}, "2.5")):
        async with dev_server(data, "--procfile", str(procfile), env=env) as dev:
            await dev.until_ready()
            assert await _get(dev, "WORKER_DRAIN_S") == seconds
            dev.child.send(signal.SIGTERM)
            assert await dev.until_ended() == 0
            assert f"waiting up to {seconds} s for current steps (WORKER_DRAIN_S); Ctrl-C again" in dev.output()


@pytest.mark.slow
async def test_dev_without_a_worker_that_speaks_is_not_ready(data: Path, procfile: Path) -> None:
    """Neither a worker that is only alive makes it ready, nor one of an earlier start that was killed."""
    async with dev_server(data, "--procfile", str(procfile)) as dev:
        await dev.until_ready()
        dev.child.send(signal.SIGKILL)
    procfile.write_text(procfile.read_text().replace("worker.py", "worker.py silent"))
    async with dev_server(data, "--procfile", str(procfile)) as dev:
        await dev.until_printed("worker is up")
        environments = [process.environ() for process in dev.processes() if process.name().startswith("python")]
        settings = load_settings(environments[0])
        await eventually(lambda: is_ready("127.0.0.1", settings.port), 20)
        async with await open_pool(settings, size=1) as pool:
            assert await pool.fetchval("select count(*) from catalogue") == 1
            sessions = await _sessions(pool)
            # Each look into the catalogue is a session of its own.
            await eventually(lambda: _more_sessions(pool, sessions + 3), 20)
            assert "ready at" not in dev.output()
            await upsert_offers(pool, f"{socket.gethostname()}:1:", Offers())
        await dev.until_ready()


@pytest.mark.slow
async def test_dev_with_misconfigured_worker_ends_with_its_words(data: Path, procfile: Path) -> None:
    """A process that ends with status 2 during the start ends everything: status 1, and its last line again."""
    procfile.write_text(procfile.read_text().replace("worker.py", "worker.py misconfigured"))
    async with dev_server(data, "--procfile", str(procfile)) as dev:
        assert await dev.until_ended() == 1
        assert dev.output().splitlines()[-1] == "throughline: worker.1 cannot start: no good: FLAVOUR"
        assert "ready at" not in dev.output()
        assert "database system is shut down" in (data / "postgres.log").read_text()


def _name(process: psutil.Process) -> str:
    """Nothing where it has ended meanwhile: Postgres' own processes come and go."""
    try:
        return str(process.name())
    except psutil.NoSuchProcess:
        return ""


async def test_dev_killed_leaves_no_process_behind(data: Path, procfile: Path) -> None:
    """After `kill -9` neither servers nor API nor workers remain, and the next start works at once."""
    async with dev_server(data, "--workers", "2", "--procfile", str(procfile)) as dev:
        await dev.until_ready()
        processes = dev.processes()
        assert {"postgres", "valkey-server"} <= {_name(process) for process in processes}
        dev.child.send(signal.SIGKILL)
        await eventually(lambda: all(is_gone(process) for process in processes), 10)
    async with dev_server(data, "--procfile", str(procfile)) as dev:
        await dev.until_ready()


async def test_dev_whose_caller_is_killed_stops(data: Path, procfile: Path) -> None:
    """With --follow-parent, as `make run` starts it, it does not outlive a `make` that is killed."""
    shell = ("/bin/sh", "-c", '"$@"; exit $?', "sh", Path(sys.executable).with_name("throughline"))
    async with dev_server(data, "--follow-parent", "--procfile", str(procfile), command=shell) as caller:
        await caller.until_ready()
        processes = caller.processes()
        caller.child.send(signal.SIGKILL)
        await eventually(lambda: all(is_gone(process) for process in processes), 20)


@pytest.mark.parametrize("name", ["python", "postgres", "valkey-server"])
async def test_dev_starts_again_what_dies(data: Path, procfile: Path, name: str) -> None:
    """A killed web process, Postgres or Valkey is running again within seconds, with the same address."""
    async with dev_server(data, "--procfile", str(procfile)) as dev:
        await dev.until_ready()
        if name == "python":
            victim = psutil.Process(int(await _get(dev, "")))
        else:
            children = psutil.Process(dev.child.pid).children()
            victim = next(child for child in children if child.name() == name)
        victim.kill()
        if name == "python":
            await dev.until_printed("web         | ended with status -9; starting it again in 0.5 s")
            assert int(await eventually(lambda: _get_or_none(dev))) != victim.pid
        else:
            await dev.until_printed("ended with status -9; starting it again")
            url = await _get(dev, "DATABASE_URL")
            await eventually(lambda: _can_query(url), 15)


@pytest.mark.slow
async def test_dev_after_restart_has_its_data(data: Path, procfile: Path) -> None:
    """What was written to Postgres and Valkey, and the signing secret, are there after a stop and a start."""
    async with dev_server(data, "--procfile", str(procfile)) as dev:
        await dev.until_ready()
        secret = await _get(dev, "JWT_SECRET")
        connection = await asyncpg.connect(await _get(dev, "DATABASE_URL"))
        await connection.execute("create table kept as select 42 as answer")
        await connection.close()
        assert await _valkey(await _get(dev, "REDIS_URL"), b"SET kept 42") == b"+OK\r\n"
    async with dev_server(data, "--procfile", str(procfile)) as dev:
        await dev.until_ready()
        assert await _get(dev, "JWT_SECRET") == secret
        connection = await asyncpg.connect(await _get(dev, "DATABASE_URL"))
        assert await connection.fetchval("select answer from kept") == 42
        await connection.close()
        assert await _valkey(await _get(dev, "REDIS_URL"), b"GET kept") == b"$2\r\n"


@pytest.mark.slow
async def test_dev_on_used_folder_is_refused(data: Path, procfile: Path) -> None:
    """A second `dev` on the same folder says so, whatever its port, and leaves the first one alone."""
    async with dev_server(data, "--procfile", str(procfile)) as first:
        await first.until_ready()
        for port in ("0", first.address.rpartition(":")[2]):
            async with dev_server(data, "--port", port, "--procfile", str(procfile)) as second:
                assert await second.until_ended() == 1
                assert f"another `throughline dev` uses {data}" in second.output()
        assert await _can_query(await _get(first, "DATABASE_URL"))


async def test_dev_on_used_port_is_refused(data: Path, procfile: Path) -> None:
    """A port that somebody listens on is an error before any server is started."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        async with dev_server(data, "--port", str(port), "--procfile", str(procfile)) as dev:
            assert await dev.until_ended() == 1
            assert f"cannot listen on 127.0.0.1:{port}" in dev.output()
            assert not (data / "pg").exists()


async def test_dev_with_servers_of_ones_own_uses_them(
    data: Path, procfile: Path, database_url: str, redis_url: str
) -> None:
    """With DATABASE_URL and REDIS_URL set it starts neither Postgres nor Valkey."""
    env = {"DATABASE_URL": database_url, "REDIS_URL": redis_url}
    async with dev_server(data, "--procfile", str(procfile), env=env) as dev:
        await dev.until_ready()
        assert await _get(dev, "DATABASE_URL") == database_url
        assert {process.name() for process in dev.processes()}.isdisjoint({"postgres", "valkey-server"})


async def test_dev_with_half_of_the_servers_is_refused(data: Path, procfile: Path, servers: Servers) -> None:
    """DATABASE_URL without REDIS_URL is a mistake, not a wish for one embedded server."""
    env = {"DATABASE_URL": servers.database_url}
    async with dev_server(data, "--procfile", str(procfile), env=env) as dev:
        assert await dev.until_ended() == 1
        assert "set both DATABASE_URL and REDIS_URL" in dev.output()


async def test_dev_with_failing_release_starts_nothing_else(data: Path, procfile: Path) -> None:
    """When the release line fails, neither API nor workers run, and the servers end."""
    procfile.write_text(procfile.read_text().replace("throughline migrate", "throughline migrated"))
    async with dev_server(data, "--procfile", str(procfile)) as dev:
        assert await dev.until_ended() == 1
        assert "`throughline migrated` ended with status 2" in dev.output()
        assert "worker is up" not in dev.output()


async def _get(dev: DevServer, variable: str) -> str:
    """What the web process has in an environment variable; its process number for an empty name."""
    async with httpx.AsyncClient() as client:
        return (await client.get(f"{dev.address}/{variable}")).text


async def _get_or_none(dev: DevServer) -> str | None:
    try:
        return await _get(dev, "")
    except httpx.TransportError:
        return None


async def _can_query(url: str) -> bool:
    try:
        connection = await asyncpg.connect(url, timeout=1)
    except (OSError, TimeoutError, asyncpg.PostgresError):
        return False
    try:
        return bool(await connection.fetchval("select true"))
    finally:
        await connection.close()


async def _more_sessions(pool: Pool, count: int) -> bool:
    return await _sessions(pool) >= count


async def _sessions(pool: Pool) -> int:
    """How many sessions this database has seen."""
    return int(await pool.fetchval("select sessions from pg_stat_database where datname = current_database()"))


async def _valkey(url: str, command: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(url.removeprefix("unix://"))
    try:
        writer.write(command + b"\r\n")
        return await reader.readline()
    finally:
        writer.close()
        await writer.wait_closed()
