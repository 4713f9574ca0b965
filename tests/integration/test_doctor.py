"""`throughline doctor` on real stores: a system that is well, and one fault at a time."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import asyncpg
import msgspec
import pytest

from common.config import Settings
from common.devserver.cli import main
from common.doctor.examination import examine
from common.doctor.findings import Finding, as_text, is_well
from common.model.run_state import RunState
from common.store.database import Pool, workspace_transaction
from common.store.run_schedule import claim_runs
from tests.conftest import JWT_SECRET
from tests.support.api_client import offer
from tests.support.seed import seed_run
from tests.support.servers import Servers
from tests.support.worker_life import write

KEY = "sk-a-key-that-nobody-may-see"


class Provider(BaseHTTPRequestHandler):
    """Lists models for one key; below /moved it points elsewhere, below /keys it is an issuer of tokens."""

    asked: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.asked.append(self.path)
        key = self.headers.get("x-api-key") or self.headers.get("authorization", "").removeprefix("Bearer ")
        status, body = 200, b"{}"
        if self.path == "/keys":
            body = b'{"keys": [{"kty": "EC"}]}'
        elif self.path.startswith("/moved"):
            status = 302
        elif self.path.startswith("/nothing"):
            status = 404
        elif key != KEY:
            status = 401
        self.send_response(status)
        self.send_header("Location", "/v1/elsewhere")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Says nothing."""


@pytest.fixture
def provider_url() -> Iterator[str]:
    """A provider on loopback."""
    Provider.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def environment(settings: Settings) -> dict[str, str]:
    """Of a system that is well, once a worker has spoken."""
    return {
        "DATABASE_URL": settings.database_url,
        "REDIS_URL": settings.redis_url,
        "JWT_SECRET": JWT_SECRET,
        "DEFAULT_PROVIDER": "echo",
        "SWEEP_S": "0.01",
    }


def _of(findings: list[Finding], check: str) -> Finding:
    [found] = [finding for finding in findings if finding.check == check]
    return found


async def test_system_that_works_has_no_problem(pool: Pool, environment: dict[str, str]) -> None:
    """Nothing is made up where nothing is wrong."""
    await offer(pool)
    findings = await examine(environment)
    assert is_well(findings), as_text(findings)
    wells = {finding.check for finding in findings if finding.status == "ok"}
    stores = {"postgres", "role", "migrations", "row level security", "connections", "workers", "runs"}
    assert {"settings", "tokens", "providers", "web page", *stores} <= wells


@pytest.mark.parametrize(
    ("sql", "check", "says"),
    [
        ("alter table messages no force row level security", "row level security", "does not hold for messages"),
        ("drop policy workspace on agents", "row level security", "does not hold for agents"),
        ("create table notes (workspace_id uuid)", "row level security", "does not hold for notes"),
        ("delete from schema_migrations where number = 11", "migrations", "missing: 0011_housekeeping.sql"),
        ("revoke select on schema_migrations from throughline_app", "migrations", "missing: "),
        ("update schema_migrations set checksum = '' where number = 2", "migrations", "0002_scheduler_functions.sql"),
        ("delete from catalogue", "workers", "none has ever spoken"),
        ("update catalogue set seen_at = seen_at - interval '2 min'", "workers", "the last one spoke 12"),
        (
            "create table strange (); alter table strange owner to throughline_app",
            "role",
            "throughline_app owns tables",
        ),
    ],
)
async def test_fault_of_the_database_is_found(
    pool: Pool, owner: asyncpg.Connection, environment: dict[str, str], sql: str, check: str, says: str
) -> None:
    """Each by its own line, as a problem."""
    await offer(pool)
    await owner.execute(sql)
    finding = _of(await examine(environment), check)
    assert finding.status == "problem"
    assert says in finding.says


async def test_database_of_a_newer_version_is_a_warning(
    pool: Pool, owner: asyncpg.Connection, environment: dict[str, str]
) -> None:
    """It may be what a release that is being rolled out has made."""
    await offer(pool)
    await owner.execute("insert into schema_migrations values (9000, '9000_later.sql', '')")
    findings = await examine(environment)
    assert (_of(findings, "migrations").status, is_well(findings)) == ("warning", True)


async def test_stuck_runs_are_found(pool: Pool, owner: asyncpg.Connection, environment: dict[str, str]) -> None:
    """Leases that nobody sweeps, waiting runs that nobody promotes, due runs that nobody claims."""
    await offer(pool)
    running = await seed_run(pool)
    await claim_runs(pool, "a dead worker", 10, 10)
    await write(pool, running, "update runs set lease_until = clock_timestamp() - interval '1 min'")
    await seed_run(pool, state=RunState.WAITING)
    due = await seed_run(pool)
    await write(pool, due, "update runs set available_at = clock_timestamp() - interval '2 min'")
    found = [(one.status, one.says) for one in await examine(environment) if one.check == "runs"]
    assert [status for status, _ in found] == ["warning", "problem", "problem"]
    assert [says.split()[0] for _, says in found] == ["1", "1", "1"]


async def test_superuser_must_not_serve(environment: dict[str, str]) -> None:
    """Without a role to become, the owner's login is what nothing starts with."""
    finding = _of(await examine(environment | {"DATABASE_ROLE": "postgres"}), "role")
    assert (finding.status, "row level security would not hold" in finding.says) == ("problem", True)


async def test_login_that_is_no_member_is_told_so(servers: Servers, environment: dict[str, str]) -> None:
    """Postgres refuses the role; the finding says what to grant."""
    await servers.execute("create role no_member login")
    try:
        url = environment["DATABASE_URL"].replace("postgres@", "no_member@")
        finding = _of(await examine(environment | {"DATABASE_URL": url}), "role")
    finally:
        await servers.execute("drop role no_member")
    assert finding.status == "problem"
    assert "cannot become throughline_app" in finding.says
    assert "grant throughline_app" in finding.advice


@pytest.mark.parametrize(
    ("change", "check", "says"),
    [
        ({"DATABASE_URL": "postgresql://u:hidden-word@127.0.0.1:1/db"}, "postgres", "no connection to 127.0.0.1:1/db"),
        ({"DATABASE_URL": "mysql://u:hidden-word@h/db"}, "postgres", "DATABASE_URL cannot be read"),
        ({"REDIS_URL": "redis://:hidden-word@127.0.0.1:1"}, "redis", "no answer from 127.0.0.1:1"),
        ({"REDIS_URL": "redis://:hidden-word#@h"}, "redis", "REDIS_URL cannot be read"),
        ({"QUEUE_REDIS_URL": "redis://:hidden-word@127.0.0.1:1"}, "queue redis", "no answer from 127.0.0.1:1"),
        ({"LEASE_S": "never"}, "settings", "LEASE_S must be"),
    ],
)
async def test_what_cannot_be_reached_is_told_soon_and_without_its_password(
    environment: dict[str, str], change: dict[str, str], check: str, says: str
) -> None:
    """Also then everything else is examined, within seconds."""
    begun = time.monotonic()
    findings = await examine(environment | change)
    assert time.monotonic() - begun < 15
    finding = _of(findings, check)
    assert finding.status == "problem"
    assert says in finding.says
    assert "hidden-word" not in as_text(findings)


@pytest.mark.parametrize(
    ("change", "check", "status", "says"),
    [
        ({}, "provider anthropic", "ok", "takes the key"),
        ({"ANTHROPIC_API_KEY": "sk-another-that-nobody-may-see"}, "provider anthropic", "problem", "refuses the key"),
        ({"ANTHROPIC_API_KEY": "sk-another\nthat-nobody-may-see"}, "provider anthropic", "problem", "can be sent"),
        ({"OPENAI_BASE_URL": "URL/nothing"}, "provider openai", "warning", "it answers 404"),
        ({"OPENAI_BASE_URL": "URL/moved"}, "provider openai", "warning", "it answers 302"),
        ({"OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}, "provider openai", "problem", "no answer"),
        ({"JWT_JWKS_URL": "URL/keys", "JWT_ISSUER": "a"}, "token issuer", "ok", "1 keys"),
        ({"JWT_JWKS_URL": "URL/nothing", "JWT_ISSUER": "a"}, "token issuer", "problem", "cannot be read"),
        ({"JWT_JWKS_URL": "URL/v1/models", "JWT_ISSUER": "a"}, "token issuer", "problem", "cannot be read"),
    ],
)
async def test_providers_are_asked_only_on_demand(
    provider_url: str, change: dict[str, str], check: str, status: str, says: str
) -> None:
    """With `--ask` one request each, to the configured address alone; keys are never shown."""
    environment = {
        "ANTHROPIC_BASE_URL": provider_url,
        "ANTHROPIC_API_KEY": KEY,
        "OPENAI_BASE_URL": f"{provider_url}/v1",
        "OPENAI_API_KEY": KEY,
        **{name: value.replace("URL", provider_url) for name, value in change.items()},
    }
    await examine(environment)
    assert Provider.asked == []
    findings = await examine(environment, ask=True)
    finding = _of(findings, check)
    assert (finding.status, says in finding.says) == (status, True), finding
    assert "/v1/elsewhere" not in Provider.asked
    assert "nobody-may-see" not in as_text(findings)


def test_command_tells_by_its_status(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """1 where there is a problem; `--json` is for programs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("THROUGHLINE_ENV", "production")
    for name in ("DATABASE_URL", "REDIS_URL", "JWT_SECRET"):
        monkeypatch.delenv(name, raising=False)
    assert main(["doctor", "--json"]) == 1
    answer = msgspec.json.decode(capsys.readouterr().out)
    assert answer["ok"] is False
    assert {"check": "tokens", "status": "problem"}.items() <= next(
        finding.items() for finding in answer["findings"] if finding["check"] == "tokens"
    )
    assert main(["doctor"]) == 1
    assert "-> Set JWT_SECRET or JWT_JWKS_URL." in capsys.readouterr().out


async def test_examination_changes_nothing(pool: Pool, environment: dict[str, str]) -> None:
    """It may be run at any time, beside whatever runs."""
    await offer(pool)
    seeded = await seed_run(pool)
    await examine(environment)
    async with workspace_transaction(pool, seeded.workspace_id) as connection:
        assert await connection.fetchval("select state from runs") == "queued"
