"""Errors of providers by kind."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import aiohttp
import httpx2
import pytest

from worker.providers.base import ErrorKind
from worker.providers.errors import SdkErrors, from_event, from_exception, from_status, read_retry_after


class Status(Exception):
    pass


class Unreachable(Exception):
    pass


class TimedOut(Unreachable):
    """In both SDKs a timeout is a kind of connection error."""


SDK = SdkErrors(Status, TimedOut, Unreachable)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "12"}, 12),
        ({"retry-after": "1.5"}, 1.5),
        ({"retry-after": "-3"}, 0),
        ({"retry-after-ms": "300", "retry-after": "9"}, 0.3),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "1.2.3"}, None),
        ({"retry-after-ms": "many"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    """Seconds, fractions and milliseconds are read; what lies in the past is 0; what cannot be read is None."""
    assert read_retry_after(headers) == seconds


def test_retry_after_as_date() -> None:
    """An HTTP date is turned into seconds from now."""
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert read_retry_after({"retry-after": date}) == pytest.approx(30, abs=2)


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (429, {"code": "insufficient_quota", "type": "insufficient_quota", "message": "no credit"}, "rejected"),
        (429, {"code": "rate_limit_exceeded", "message": "slow down"}, "rate_limited"),
        (400, {"code": "context_length_exceeded", "message": "too many tokens"}, "context_length"),
        (400, {"type": "invalid_request_error", "message": "maximum context length is 8192"}, "context_length"),
        (400, {"code": "invalid_api_key", "message": "bad key"}, "auth"),
        (402, {"code": 402, "message": "Insufficient credits"}, "rejected"),
        (404, {"code": "model_not_found", "message": "no such model"}, "not_found"),
        (503, {"message": "maximum context length"}, "overloaded"),
    ],
)
def test_error_answer_with_code(status: int, error: dict[str, object], kind: ErrorKind) -> None:
    """The body's code is more exact than the status: what no retry can heal is not retried."""
    assert from_status("x", status, {}, {"error": error}).kind == kind


@pytest.mark.parametrize("body", [None, "", "<html>", [], {}, {"error": None}, {"error": []}, {"error": "text"}])
def test_error_answer_with_odd_body(body: object) -> None:
    """Whatever the body is, the status gives the kind."""
    assert from_status("x", 500, {}, body).kind == "server"


def test_error_message_quotes_no_key() -> None:
    """An auth error quotes nothing; other explanations lose what looks like a key, and are short."""
    auth = from_status("x", 401, {}, {"error": {"message": "Incorrect API key provided: abc*****xyz"}})
    assert "abc" not in auth.message
    other = from_status("x", 400, {}, {"error": {"message": "bad sk-proj-abc_123456 here " + "y" * 1000}})
    assert "sk-proj" not in other.message
    assert "here" in other.message
    assert len(other.message) < 400


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": 502, "message": "gone"}, "server"),
        ({"code": 429, "message": "slow"}, "rate_limited"),
        ({"code": "1302", "message": "busy"}, "server"),
        ({"type": "overloaded_error", "message": "Overloaded"}, "overloaded"),
        ({"type": "rate_limit_error", "message": "slow"}, "rate_limited"),
        ({"type": "invalid_request_error", "message": "prompt is too long"}, "context_length"),
        ({"code": None, "type": None}, "server"),
        ("text", "server"),
    ],
)
def test_error_in_stream(error: object, kind: ErrorKind) -> None:
    """Numbers are read as statuses, words as codes; what is unknown is a failure of the server."""
    assert from_event("x", {"error": error}).kind == kind


def caused_by(outer: Exception, inner: Exception) -> Exception:
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize(
    ("error", "before", "after"),
    [
        (TimedOut(), "timeout", "timeout"),
        (Unreachable(), "connection", "truncated"),
        (httpx2.ReadError("reset"), "connection", "truncated"),
        (httpx2.ConnectTimeout("slow"), "timeout", "timeout"),
        (httpx2.RemoteProtocolError("odd"), "connection", "truncated"),
        (aiohttp.ClientPayloadError("cut"), "connection", "truncated"),
        (ConnectionResetError(), "connection", "truncated"),
        (TimeoutError(), "timeout", "timeout"),
        (caused_by(TimedOut(), aiohttp.ServerDisconnectedError()), "connection", "truncated"),
        (caused_by(TimedOut(), aiohttp.ConnectionTimeoutError()), "timeout", "timeout"),
    ],
)
def test_transport_error(error: Exception, before: ErrorKind, after: ErrorKind) -> None:
    """Each failure of the network has its kind, before the answer began and after; all of them may be retried."""
    for streaming, kind in ((False, before), (True, after)):
        known = from_exception(error, SDK, "x", streaming=streaming)
        assert known is not None
        assert (known.kind, known.retryable) == (kind, True)


def test_programming_error() -> None:
    """An error that is no failure of provider or network is not dressed up as one."""
    assert from_exception(KeyError("bug"), SDK, "x", streaming=True) is None
