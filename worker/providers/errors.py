"""From what SDKs, transports and error bodies say to `ProviderError`: one table for all providers."""

import re
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import aiohttp
import httpx2

from worker.providers.base import ErrorKind, ProviderError

_KIND_BY_STATUS: dict[int, ErrorKind] = {
    401: "auth",
    403: "auth",
    404: "not_found",
    408: "timeout",
    409: "server",
    429: "rate_limited",
    503: "overloaded",
    529: "overloaded",
}
_KIND_BY_CODE: dict[str, ErrorKind] = {
    "api_error": "server",
    "authentication_error": "auth",
    "billing_error": "rejected",
    "bio_policy": "rejected",
    "context_length_exceeded": "context_length",
    "data_residency_mismatch": "rejected",
    "insufficient_quota": "rejected",
    "invalid_api_key": "auth",
    "invalid_prompt": "rejected",
    "invalid_request_error": "rejected",
    "misalignment_policy_violation": "rejected",
    "model_not_found": "not_found",
    "not_found_error": "not_found",
    "overloaded_error": "overloaded",
    "permission_error": "auth",
    "rate_limit_error": "rate_limited",
    "rate_limit_exceeded": "rate_limited",
    "request_too_large": "rejected",
    "server_error": "server",
    "timeout_error": "timeout",
}
_TOO_LONG = re.compile(r"prompt is too long|maximum context length|context[ _](?:window|length)", re.IGNORECASE)
_LIKE_A_KEY = re.compile(r"\b(?:sk|pk|key|Bearer)[-_ ][\w*.-]{6,}", re.IGNORECASE)
_EXPLANATION_LIMIT = 300


class SdkErrors(NamedTuple):
    """The exception classes of one SDK; both families have the same three."""

    status: type[Exception]
    timeout: type[Exception]
    connection: type[Exception]


def from_exception(error: Exception, sdk: SdkErrors, provider: str, *, streaming: bool) -> ProviderError | None:
    """What `error` means, or None when it is no failure of the provider or the network.

    `streaming`: the answer had begun, so that a lost connection has truncated it.
    """
    if isinstance(error, sdk.status):
        response: httpx2.Response = error.response  # type: ignore[attr-defined]
        return from_status(provider, response.status_code, response.headers, error.body)  # type: ignore[attr-defined]
    if _timed_out(error, sdk):
        return ProviderError("timeout", f"{provider} did not answer in time")
    if isinstance(error, (sdk.connection, httpx2.TransportError, httpx2.DecodingError, aiohttp.ClientError, OSError)):
        if streaming:
            return truncated(provider)
        return ProviderError("connection", f"{provider} could not be reached")
    return None


def truncated(provider: str) -> ProviderError:
    """The stream ended before the answer did."""
    return ProviderError("truncated", f"{provider} broke off in the middle of its answer")


def from_status(provider: str, status: int, headers: Mapping[str, str], body: object) -> ProviderError:
    """An HTTP error answer. `body` is the decoded JSON, or the text where it was none."""
    code, explanation = _read_body(body)
    kind = _KIND_BY_STATUS.get(status) or ("server" if status >= 500 else "rejected")
    if kind in ("rejected", "rate_limited", "not_found"):
        kind = _kind_of_refusal(code, explanation) or kind
    return _error(provider, kind, explanation, status=status, retry_after_s=read_retry_after(headers))


def from_event(provider: str, body: object) -> ProviderError:
    """An error that came inside a stream which had begun with status 200."""
    code, explanation = _read_body(body)
    if code.isdigit():
        return from_status(provider, int(code), {}, body)
    kind = _kind_of_refusal(code, explanation) or _KIND_BY_CODE.get(code, "server")
    return _error(provider, kind, explanation)


def read_retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the provider asks to wait, from any of the three forms in use; None where it says nothing."""
    try:
        if milliseconds := headers.get("retry-after-ms"):
            return max(0.0, float(milliseconds) / 1000)
        value = headers.get("retry-after", "")
        if re.fullmatch(r"-?[\d.]+", value):
            return max(0.0, float(value))
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time()) if value else None
    except ValueError:
        return None


def _timed_out(error: BaseException, sdk: SdkErrors) -> bool:
    """Whether time was the reason. aiohttp's own error decides: one SDK calls every lost connection a timeout."""
    origin: BaseException | None = error
    while origin is not None:
        if isinstance(origin, aiohttp.ClientError):
            return isinstance(origin, TimeoutError)
        origin = origin.__cause__
    return isinstance(error, (sdk.timeout, httpx2.TimeoutException, TimeoutError))


def _read_body(body: object) -> tuple[str, str]:
    """Code and explanation out of `{"error": {…}}`, a bare error object, or nothing usable."""
    error: Any = body.get("error", body) if isinstance(body, dict) else None
    if isinstance(error, str):
        return "", error
    if not isinstance(error, dict):
        return "", ""
    code = error.get("code") or error.get("type") or ""
    if code not in _KIND_BY_CODE and error.get("type") in _KIND_BY_CODE and not str(code).isdigit():
        code = error["type"]
    return str(code), str(error.get("message") or "")


def _kind_of_refusal(code: str, explanation: str) -> ErrorKind | None:
    kind = _KIND_BY_CODE.get(code)
    if kind in (None, "rejected") and _TOO_LONG.search(explanation):
        return "context_length"
    return kind if kind in ("context_length", "rejected", "auth", "not_found") else None


def _error(
    provider: str,
    kind: ErrorKind,
    explanation: str,
    *,
    status: int | None = None,
    retry_after_s: float | None = None,
) -> ProviderError:
    said = {
        "auth": "refused the API key",
        "rate_limited": "is limiting the rate of requests",
        "overloaded": "is overloaded",
        "server": "failed",
        "timeout": "did not answer in time",
        "not_found": "does not know this model or address",
        "context_length": "refused the conversation: it is longer than the model can read",
    }.get(kind, "refused the request")
    message = f"{provider} {said}" + (f" (status {status})" if status else "")
    # Of an auth error nothing is quoted: providers repeat parts of the key in it.
    if explanation and kind in ("rejected", "not_found"):
        message += f": {_LIKE_A_KEY.sub('***', explanation)[:_EXPLANATION_LIMIT]}"
    return ProviderError(kind, message, status=status, retry_after_s=retry_after_s)
