"""Logs: one format for all, and neither keys nor content in them."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from common.config import Settings, load_settings
from common.observability.logging import configure_logging

_KEY = "sk-canary-0123456789"
_PASSWORD = "canary password"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def _configured(**environment: str) -> io.StringIO:
    stream = io.StringIO()
    configure_logging(load_settings({"THROUGHLINE_ENV": "production", **environment}), stream)
    return stream


def test_log_in_production_is_one_json_object_per_line() -> None:
    """A log processor gets time, level, logger, event and fields, from us and from libraries alike."""
    stream = _configured()
    structlog.get_logger("worker.job").info("run_claimed", attempt=3)
    logging.getLogger("some.library").warning("%s of %d", "part", 2)
    ours, theirs = map(json.loads, stream.getvalue().splitlines())
    assert ours["event"] == "run_claimed"
    assert (ours["level"], ours["logger"], ours["attempt"]) == ("info", "worker.job", 3)
    assert ours["timestamp"].endswith("Z")
    assert theirs["event"] == "part of 2"
    assert (theirs["level"], theirs["logger"]) == ("warning", "some.library")


def test_log_in_development_is_readable() -> None:
    """The console gets text, without colours where it is no terminal."""
    stream = _configured(THROUGHLINE_ENV="development")
    structlog.get_logger("worker.job").info("run_claimed", attempt=3)
    assert "run_claimed" in stream.getvalue()
    assert "attempt=3" in stream.getvalue()
    assert "\x1b" not in stream.getvalue()


def test_log_below_the_level_is_left_out() -> None:
    """LOG_LEVEL counts for us and for libraries."""
    stream = _configured(LOG_LEVEL="warning")
    structlog.get_logger("a").info("quiet")
    logging.getLogger("b").info("quiet")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("library", ["httpx2", "anthropic", "openai", "arq.worker", "uvicorn.access"])
def test_log_of_requests_by_libraries_is_left_out(library: str) -> None:
    """Even at the level debug no library writes bodies, job arguments or URLs with tickets."""
    stream = _configured(LOG_LEVEL="debug")
    logging.getLogger(library).info("GET /v1/runs?ticket=canary")
    logging.getLogger(library).debug("content")
    assert stream.getvalue() == ""


@pytest.mark.parametrize("kind", ["development", "production"])
def test_log_of_exception_has_no_local_variables(kind: str) -> None:
    """A traceback names lines of code, not the texts that they were working on."""
    stream = _configured(THROUGHLINE_ENV=kind)
    content = "what the user wrote".upper()
    try:
        int(content[:0])
    except ValueError:
        structlog.get_logger("a").exception("failed")
    assert "ValueError" in stream.getvalue()
    assert "WHAT THE USER WROTE" not in stream.getvalue()


def test_log_of_database_error_has_no_row() -> None:
    """Postgres quotes the rejected row in DETAIL; the rest of the error stays."""
    stream = _configured()
    message = 'violates constraint "c"\nDETAIL:  Failing row contains (canary\nline).\nHINT:  h'
    try:
        raise ValueError(message)
    except ValueError:
        structlog.get_logger("a").exception("failed")
    assert 'violates constraint \\"c\\"' in stream.getvalue()
    assert "HINT:  h" in stream.getvalue()
    assert "canary" not in stream.getvalue()


def test_log_of_a_value_that_cannot_be_sent_has_not_the_value() -> None:
    """asyncpg quotes the argument, which may be content; which one it was stays."""
    stream = _configured()
    try:
        raise ValueError("invalid input for query argument $3: 'canary (of a user)' ('utf-8' codec can't encode)")
    except ValueError as error:
        structlog.get_logger("a").exception("failed", error=str(error))
    assert "query argument $3: ***" in stream.getvalue()
    assert "canary" not in stream.getvalue()


@pytest.mark.parametrize("kind", ["development", "production"])
def test_log_with_secret_is_redacted(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Whatever leads a key or a password of the settings into a line, it does not get out."""
    monkeypatch.setenv("LOCAL_KEY", "local-canary-key")
    stream = _configured(
        THROUGHLINE_ENV=kind,
        ANTHROPIC_API_KEY=_KEY,
        DATABASE_URL=f"postgresql://me:{_PASSWORD.replace(' ', '%20')}@host/db",
        COMPATIBLE_PROVIDERS='[{"name": "local", "baseUrl": "http://a", "apiKeyEnv": "LOCAL_KEY"}]',
        METRICS_TOKEN="canary of the metrics",
        OTEL_EXPORTER_OTLP_HEADERS="api-key=canary-of-the-collector",
        REDIS_URL="redis+sentinel://:canary-redis@one,two/master?sentinel_password=canary-sentinel",
        QUEUE_REDIS_URL="",
        MIGRATION_DATABASE_URL="postgresql://me@host/db?password=canary-postgres",
    )
    structlog.get_logger("a").warning("refused", token="canary of the metrics", sent="canary-of-the-collector")
    structlog.get_logger("a").warning("refused", url=f"http://me:{_PASSWORD}@host", key=_KEY)
    structlog.get_logger("a").warning("refused", error="canary-redis canary-sentinel canary-postgres")
    logging.getLogger("b").error("key %s, %s", _KEY, {"k": "local-canary-key"})
    assert "refused" in stream.getvalue()
    assert "canary" not in stream.getvalue()


def test_log_without_secrets_in_settings_works() -> None:
    """Nothing to hide hides nothing."""
    stream = io.StringIO()
    configure_logging(Settings(), stream)
    structlog.get_logger("a").info("plain", url="http://host")
    assert json.loads(stream.getvalue())["url"] == "http://host"
