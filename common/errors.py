"""Errors that a caller of the HTTP API can look up: one enum of codes, one exception."""

from enum import StrEnum
from typing import Any


class ErrorCode(StrEnum):
    """Every code that an error answer can carry; each has one HTTP status."""

    INVALID_REQUEST = "invalid_request"
    INVALID_CURSOR = "invalid_cursor"
    UNKNOWN_PROVIDER = "unknown_provider"
    PROVIDER_NOT_CONFIGURED = "provider_not_configured"
    UNKNOWN_TOOL = "unknown_tool"
    UNKNOWN_AGENT = "unknown_agent"
    WORKSPACE_REQUIRED = "workspace_required"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    NO_RUN = "no_run"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    REQUEST_TIMEOUT = "request_timeout"
    CONVERSATION_BUSY = "conversation_busy"
    CONVERSATION_WENT_ON = "conversation_went_on"
    RUN_NOT_FAILED = "run_not_failed"
    RUN_DETAILS_REMOVED = "run_details_removed"
    PAYLOAD_TOO_LARGE = "payload_too_large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    IDEMPOTENCY_KEY_REUSED = "idempotency_key_reused"
    RATE_LIMITED = "rate_limited"
    TOO_MANY_RUNS = "too_many_runs"
    TOO_MANY_CONNECTIONS = "too_many_connections"
    BUDGET_EXCEEDED = "budget_exceeded"
    INTERNAL = "internal"
    UNAVAILABLE = "unavailable"


class ThroughlineError(Exception):
    """Ends a request with `code`. `details` goes to the client as it is: no secrets, no other tenant's ids.

    `retry_after_s` says when the same request may be answered otherwise.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        details: dict[str, Any] | None = None,
        *,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details
        self.retry_after_s = retry_after_s


class LeaseLost(Exception):
    """This worker no longer owns the run: its attempt was replaced or the run has ended. Stop at once."""
