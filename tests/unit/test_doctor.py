"""What the doctor makes of what it sees: each finding, provoked once."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from common.config import Settings, load_settings
from common.devserver.embedded import sockets_folder
from common.devserver.examined import examined_environment
from common.doctor.configuration import check_settings, check_tokens
from common.doctor.findings import Finding, as_json, as_text, is_well, ok, problem, warning
from common.doctor.machine import check_open_files, check_page
from common.doctor.postgres import (
    judge_connections,
    judge_queue,
    judge_role,
    judge_schema,
    judge_server,
    judge_tables,
    judge_workers,
    place,
)
from common.doctor.providers import check_keys
from common.doctor.redis import judge_redis
from common.store.diagnosis import Queue, Role, Server, Workers
from common.store.schema import Schema

_STORES = {"DATABASE_URL": "postgresql://a@b/c", "REDIS_URL": "redis://a"}
_SECRET = {"JWT_SECRET": "0123456789abcdefghijklmnopqrstuvwxyz"}
_COMPATIBLE = '[{"name": "local", "baseUrl": "http://127.0.0.1:1/v1", "apiKeyEnv": "LOCAL_KEY"}]'
_SERVER = Server(version="17.2", number=170002, is_read_only=False, places=97, skew_s=0.01)
_QUEUE = Queue(due=3, oldest_due_s=2.0, running=5, expired=1, oldest_expired_s=1.0, waiting=2, forgotten=0)
_INFO = {
    "redis_version": "7.4.1",
    "role": "master",
    "maxmemory_policy": "noeviction",
    "maxmemory": 1000,
    "used_memory": 500,
    "aof_enabled": 1,
    "cluster_enabled": 0,
}


@pytest.mark.parametrize(
    ("variables", "status", "says"),
    [
        ({"DATABASE_URL": ""}, "problem", "DATABASE_URL is not set"),
        ({"REDIS_URL": ""}, "problem", "REDIS_URL is not set"),
        ({"DATABASE_PASSWORD_SIZE": "1", "DATABASE_POOLSIZE": "3"}, "warning", "DATABASE_POOLSIZE is no setting"),
        ({"THROUGHLINE_ENV": "development", "HOST": "0.0.0.0"}, "warning", "open to others"),
        ({"REDIS_URL": "rediss://a", "REDIS_TLS_VERIFY": "false"}, "warning", "anybody may pose as Redis"),
        ({"TOOL_TIMEOUT_S": "900"}, "warning", "TOOL_TIMEOUT_S is not shorter than RUN_DEADLINE_S"),
        ({"PROVIDER_SILENCE_S": "1000"}, "warning", "PROVIDER_SILENCE_S is not shorter"),
        ({"LEASE_S": "4", "HEARTBEAT_S": "1"}, "warning", "LEASE_S=4 is not longer"),
        ({"CORS_ORIGINS": "https://a.example/"}, "warning", "CORS_ORIGINS has https://a.example/"),
        ({"CORS_ORIGINS": "a.example"}, "warning", "CORS_ORIGINS has a.example"),
        ({"TOOLS_MODULE": "no_such.module"}, "warning", "TOOLS_MODULE=no_such.module is not found"),
    ],
)
def test_settings_that_contradict_each_other_are_found(variables: dict[str, str], status: str, says: str) -> None:
    """One finding each, with what to do."""
    environment = _STORES | variables
    _expect(check_settings(load_settings(environment), environment), status, says)


def test_settings_that_go_together_are_well() -> None:
    """Nothing is held against defaults, a development system on loopback, or a module that is there."""
    environment = _STORES | {"THROUGHLINE_ENV": "development", "TOOLS_MODULE": "common.ids", "LOCAL_KEY": "x"}
    _expect(check_settings(load_settings(environment), environment), "ok", "4 of")


@pytest.mark.parametrize(
    ("variables", "status", "says"),
    [
        ({}, "problem", "no token can be verified"),
        ({"JWT_SECRET": "short"}, "problem", "JWT_SECRET has 5 bytes"),
        ({"JWT_SECRET": "abab" * 10}, "warning", "repeats a few letters"),
        ({"JWT_JWKS_URL": "http://a.example/keys", "JWT_ISSUER": "a"}, "warning", "JWT_JWKS_URL is not https"),
        ({"JWT_JWKS_URL": "https://a.example/keys"}, "warning", "without JWT_ISSUER"),
        ({**_SECRET, "JWT_JWKS_URL": "https://a.example/keys", "JWT_ISSUER": "a"}, "ok", "a secret and a key set"),
    ],
)
def test_tokens(variables: dict[str, str], status: str, says: str) -> None:
    """What the API would refuse to start with is a problem, what weakens it a warning."""
    _expect(check_tokens(load_settings(variables)), status, says)


@pytest.mark.parametrize(
    ("variables", "status", "says"),
    [
        ({}, "warning", "DEFAULT_PROVIDER is anthropic, which has no key here"),
        ({"DEFAULT_PROVIDER": "nobody"}, "warning", "DEFAULT_PROVIDER is nobody, which nobody knows"),
        ({"DEFAULT_PROVIDER": "echo", "COMPATIBLE_PROVIDERS": _COMPATIBLE}, "warning", "LOCAL_KEY, which is not set"),
        ({"DEFAULT_PROVIDER": "local", "COMPATIBLE_PROVIDERS": _COMPATIBLE, "LOCAL_KEY": "k"}, "ok", "local"),
        ({"ANTHROPIC_API_KEY": "k", "OPENAI_API_KEY": "k"}, "ok", "anthropic, openai; anthropic where"),
    ],
)
def test_keys(variables: dict[str, str], status: str, says: str) -> None:
    """Which providers have a key, and whether the one that is taken by default does."""
    _expect(check_keys(load_settings(variables), variables), status, says)


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({}, "ok", "version 17.2 at here, clocks 10 ms apart"),
        ({"number": 140011, "version": "14.11"}, "problem", "version 14.11"),
        ({"is_read_only": True}, "problem", "takes no writes"),
        ({"skew_s": 3.0}, "warning", "3.0 s ahead of this machine's"),
        ({"skew_s": -2.5}, "warning", "2.5 s behind this machine's"),
    ],
)
def test_server(change: dict[str, Any], status: str, says: str) -> None:
    """The version that is needed, writes, and a clock like ours."""
    _expect(judge_server(_SERVER._replace(**change), "here"), status, says)


@pytest.mark.parametrize(
    ("finding", "status", "says"),
    [
        (judge_role(Role("a", False, False), False), "ok", "a, for which row level security holds"),
        (judge_role(Role("a", True, False), False), "problem", "a is a superuser or has BYPASSRLS"),
        (judge_role(Role("a", False, True), False), "problem", "a owns tables"),
        (judge_role(Role("a", False, False), True), "problem", "throughline_scheduler is a superuser"),
        (judge_schema(Schema([], [], [])), "ok", "all applied"),
        (judge_schema(Schema(["0002_b.sql"], ["0009_c.sql"], [])), "problem", "missing: 0002_b.sql"),
        (judge_schema(Schema([], ["0009_c.sql"], [])), "warning", "of a newer version: 0009_c.sql"),
        (judge_schema(Schema([], [], ["0001_a.sql"])), "problem", "not the files that were applied: 0001_a.sql"),
        (judge_tables([]), "ok", "forced on every table"),
        (judge_tables(["runs"]), "problem", "does not hold for runs"),
        (judge_workers(Workers(2, 1.0)), "ok", "2 alive"),
        (judge_workers(Workers(0, 90.0)), "problem", "the last one spoke 90 s ago"),
        (judge_workers(Workers(0, None)), "problem", "none has ever spoken"),
        (judge_connections(_SERVER, Workers(6, 1.0), Settings()), "ok", "may open 94 of 97"),
        (judge_connections(_SERVER, Workers(7, 1.0), Settings()), "warning", "may open 108 of 97"),
        (check_open_files(1024), "warning", "1024: a process started from here holds about 924 streams"),
        (check_open_files(65536), "ok", "about 65436 streams"),
        (check_page(Settings(), Path("/nowhere")), "ok", "not served"),
        (check_page(Settings(web_page=True), Path("/nowhere")), "problem", "not built"),
    ],
)
def test_single_findings(finding: Finding, status: str, says: str) -> None:
    """What is so, how bad that is, and what to do about it."""
    _expect([finding], status, says)


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({}, "ok", "5 running, 3 due, 2 waiting; none is stuck"),
        ({"due": 0, "oldest_due_s": None, "expired": 0, "oldest_expired_s": None}, "ok", "none is stuck"),
        ({"oldest_due_s": 61.0}, "warning", "3 are due, the oldest for 61 s"),
        ({"oldest_expired_s": 31.0}, "problem", "1 run under a lease that ran out up to 31 s ago"),
        ({"forgotten": 2}, "problem", "2 conversations have a waiting run and nobody before it"),
    ],
)
def test_queue(change: dict[str, Any], status: str, says: str) -> None:
    """Runs that wait for long, and those that nobody looks after."""
    _expect(judge_queue(_QUEUE._replace(**change), Settings()), status, says)


@pytest.mark.parametrize(
    ("change", "status", "says"),
    [
        ({}, "ok", "Redis 7.4.1 at here"),
        ({"redis_version": "6.2.0"}, "problem", "Redis 6.2.0"),
        ({"valkey_version": "8.1.0", "redis_version": "7.2.4"}, "ok", "Valkey 8.1.0"),
        ({"valkey_version": "7.2.5"}, "problem", "Valkey 7.2.5"),
        ({"role": "slave"}, "problem", "is a replica"),
        ({"cluster_enabled": 1}, "problem", "is a cluster"),
        ({"maxmemory_policy": "allkeys-lru"}, "warning", "maxmemory-policy is allkeys-lru"),
        ({"used_memory": 801}, "warning", "80% of maxmemory are used"),
        ({"maxmemory": 0}, "ok", "Redis"),
        ({"aof_enabled": 0}, "warning", "no append-only file"),
    ],
)
def test_redis(change: dict[str, Any], status: str, says: str) -> None:
    """What INFO tells of a server that could lose live logs, or cannot be used at all."""
    _expect(judge_redis(_INFO | change, "redis", "here", is_queue=True), status, says)


def test_redis_that_hides_its_configuration_is_not_blamed() -> None:
    """Some hosts tell next to nothing."""
    _expect(judge_redis({"redis_version": "7.2.4"}, "redis", "here"), "ok", "Redis 7.2.4")


def test_built_page_is_well(tmp_path: Path) -> None:
    """Its first file is there."""
    (tmp_path / "index.html").touch()
    assert check_page(Settings(web_page=True), tmp_path) == ok("web page", "built")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@db.example:6432/live", "db.example:6432/live"),
        ("postgresql://me@/postgres?host=/tmp/sockets", "/tmp/sockets/postgres"),
        ("unix:///tmp/valkey.sock", "/tmp/valkey.sock"),
        ("redis://:pa#ss@host:6379", "its URL"),
        ("redis+sentinel://me:secret@a:1,b:2/main", "main behind 2 sentinels"),
        ("redis+sentinel://me:sec#ret@a:1,b:2", "its URL"),
    ],
)
def test_place_shows_no_password(url: str, shown: str) -> None:
    """Where a URL leads, and nobody who goes there."""
    assert place(url) == shown


@pytest.mark.parametrize(("add", "well"), [(problem, False), (warning, True)])
def test_report_is_the_same_for_people_and_programs(add: Callable[..., Finding], well: bool) -> None:
    """All findings, in order, with their advice; a warning alone is no illness."""
    findings = [ok("a", "fine"), add("long name", "strange", "Mend it.")]
    assert is_well(findings) is well
    assert msgspec.json.decode(as_json(findings))["ok"] is well
    assert msgspec.convert(msgspec.json.decode(as_json(findings))["findings"], list[Finding]) == findings
    lines = as_text(findings).splitlines()
    assert lines[0] == "ok       a          fine"
    assert lines[1].split() == [findings[1].status, "long", "name", "strange"]
    assert lines[2].strip() == "-> Mend it."
    assert lines[3] == ("0 problems, 1 warning" if well else "1 problem, 0 warnings")


def test_system_that_runs_in_this_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no store is named, `make doctor` examines what `make run` runs; in production it never does."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    data = tmp_path / "data"
    assert examined_environment({}, data) == {}
    sockets = sockets_folder(data)
    sockets.mkdir()
    (sockets / "valkey.sock").touch()
    found = examined_environment({"PORT": "1"}, data)
    assert (found["THROUGHLINE_ENV"], found["PORT"]) == ("development", "1")
    assert found["DATABASE_URL"] == f"postgresql://postgres@/postgres?host={sockets}&port=5432"
    assert found["REDIS_URL"] == f"unix://{sockets}/valkey.sock"
    assert len(found["JWT_SECRET"]) >= 32
    for environment in (
        {"THROUGHLINE_ENV": "production"},
        {"DATABASE_URL": "postgresql://a/b"},
        {"REDIS_URL": "redis://"},
    ):
        assert examined_environment(environment, data) == environment


def _expect(findings: list[Finding], status: str, says: str) -> None:
    [finding] = findings
    assert finding.status == status
    assert says in finding.says
    assert bool(finding.advice) is (status != "ok")
    assert not finding.advice or finding.advice.endswith(".")
