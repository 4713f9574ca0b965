"""One map from error codes to HTTP statuses, and one JSON form for every error that leaves this server."""

import math
from collections.abc import Callable
from typing import Any

import msgspec
import structlog
from litestar import Request, Response
from litestar.enums import MediaType
from litestar.exceptions import HTTPException, ValidationException

from api.headers import ANSWER_HEADERS
from common.errors import ErrorCode, ThroughlineError
from common.model.answers import ErrorAnswer, ErrorDetail
from common.redis import REDIS_DOWN
from common.store.database import DATABASE_DOWN

STATUS: dict[ErrorCode, int] = {
    ErrorCode.INVALID_REQUEST: 400,
    ErrorCode.INVALID_CURSOR: 400,
    ErrorCode.UNKNOWN_PROVIDER: 400,
    ErrorCode.PROVIDER_NOT_CONFIGURED: 400,
    ErrorCode.UNKNOWN_TOOL: 400,
    ErrorCode.UNKNOWN_AGENT: 400,
    ErrorCode.WORKSPACE_REQUIRED: 400,
    ErrorCode.UNAUTHORIZED: 401,
    ErrorCode.FORBIDDEN: 403,
    ErrorCode.NOT_FOUND: 404,
    ErrorCode.NO_RUN: 404,
    ErrorCode.METHOD_NOT_ALLOWED: 405,
    ErrorCode.REQUEST_TIMEOUT: 408,
    ErrorCode.CONVERSATION_BUSY: 409,
    ErrorCode.CONVERSATION_WENT_ON: 409,
    ErrorCode.RUN_NOT_FAILED: 409,
    ErrorCode.RUN_DETAILS_REMOVED: 409,
    ErrorCode.PAYLOAD_TOO_LARGE: 413,
    ErrorCode.UNSUPPORTED_MEDIA_TYPE: 415,
    ErrorCode.IDEMPOTENCY_KEY_REUSED: 422,
    ErrorCode.RATE_LIMITED: 429,
    ErrorCode.TOO_MANY_RUNS: 429,
    ErrorCode.TOO_MANY_CONNECTIONS: 429,
    ErrorCode.BUDGET_EXCEEDED: 429,
    ErrorCode.INTERNAL: 500,
    ErrorCode.UNAVAILABLE: 503,
}

_HEADERS: dict[ErrorCode, dict[str, str]] = {
    ErrorCode.UNAUTHORIZED: {"WWW-Authenticate": "Bearer"},
    ErrorCode.REQUEST_TIMEOUT: {"Connection": "close"},
    ErrorCode.UNAVAILABLE: {"Retry-After": "1"},
}
_OF_STATUS = {
    401: ErrorCode.UNAUTHORIZED,
    403: ErrorCode.FORBIDDEN,
    404: ErrorCode.NOT_FOUND,
    405: ErrorCode.METHOD_NOT_ALLOWED,
    413: ErrorCode.PAYLOAD_TOO_LARGE,
    415: ErrorCode.UNSUPPORTED_MEDIA_TYPE,
    429: ErrorCode.RATE_LIMITED,
    503: ErrorCode.UNAVAILABLE,
}

_log = structlog.get_logger(__name__)


def not_found() -> ThroughlineError:
    """The one 404 of all ids: the same for one that does not exist, is of another workspace, or is malformed."""
    return ThroughlineError(ErrorCode.NOT_FOUND, "There is nothing here by that name in this workspace.")


def invalid(message: str) -> ThroughlineError:
    """A request that says something wrong; `message` names the field."""
    return ThroughlineError(ErrorCode.INVALID_REQUEST, message)


def answer_error(request: "Request[Any, Any, Any]", error: Exception) -> Response[bytes]:
    """The answer to any exception, in our own form."""
    return answer_in_form(request, error, _native_form)


def answer_in_form(
    request: "Request[Any, Any, Any]", error: Exception, form: Callable[[ThroughlineError], msgspec.Struct]
) -> Response[bytes]:
    """The answer to any exception. What is not the client's doing is logged, and says nothing of the inside."""
    headers: dict[str, str] = {}
    match error:
        case ThroughlineError():
            known = error
        case HTTPException():
            known = _of_http(request, error)
            headers = error.headers or {}
        case _ if isinstance(error, (*DATABASE_DOWN, *REDIS_DOWN)):
            _log.warning("store_unavailable", path=request.scope["path"], error=type(error).__name__)
            known = ThroughlineError(ErrorCode.UNAVAILABLE, "A store does not answer. Try again.")
        case _:
            _log.error("request_failed", method=request.method, path=request.scope["path"], exc_info=error)
            known = ThroughlineError(ErrorCode.INTERNAL, "Something went wrong on our side.")
    return Response(
        msgspec.json.encode(form(known)),
        status_code=STATUS[known.code],
        media_type=MediaType.JSON,
        headers={**ANSWER_HEADERS, **headers, **_HEADERS.get(known.code, {}), **_retry_after(known)},
    )


def _retry_after(error: ThroughlineError) -> dict[str, str]:
    return {} if error.retry_after_s is None else {"Retry-After": str(max(1, math.ceil(error.retry_after_s)))}


def _native_form(error: ThroughlineError) -> ErrorAnswer:
    return ErrorAnswer(error=ErrorDetail(code=error.code, message=error.message, details=error.details))


def _of_http(request: "Request[Any, Any, Any]", error: HTTPException) -> ThroughlineError:
    """Litestar's own errors in our words."""
    if isinstance(error, ValidationException):
        return invalid(_describe(request, error))
    if error.status_code >= 500 and error.status_code != 503:
        _log.error("request_failed", exc_info=error)
        return ThroughlineError(ErrorCode.INTERNAL, "Something went wrong on our side.")
    code = _OF_STATUS.get(error.status_code, ErrorCode.INVALID_REQUEST)
    if code is ErrorCode.NOT_FOUND:
        return not_found() if _has_place_for_id(request) else ThroughlineError(code, "There is nothing at this path.")
    if code is ErrorCode.PAYLOAD_TOO_LARGE:
        limit = request.route_handler.resolve_request_max_body_size()
        return ThroughlineError(code, f"The body is larger than {limit} bytes.")
    return ThroughlineError(code, error.detail)


def _has_place_for_id(request: "Request[Any, Any, Any]") -> bool:
    """Whether the path is one of ours but for the ids in it, so that only these can be wrong."""
    parts = request.scope["path"].strip("/").split("/")
    return any(
        len(route.path_components) == len(parts)
        and all(
            not isinstance(known, str) or known == part
            for known, part in zip(route.path_components, parts, strict=True)
        )
        for route in request.app.routes
        if route.path_parameters
    )


def _describe(request: "Request[Any, Any, Any]", error: ValidationException) -> str:
    """`limit: Expected int <= 100`, for each parameter that is wrong."""
    faults = error.extra if isinstance(error.extra, list) else []
    described = [
        f"{_wire_name(request, fault.get('key', 'body'))}: {fault.get('message', 'invalid')}"
        for fault in faults
        if isinstance(fault, dict)
    ]
    return "; ".join(described) or error.detail


def _wire_name(request: "Request[Any, Any, Any]", field: str) -> str:
    """The name under which a handler's parameter is sent."""
    parameter = request.route_handler.parsed_fn_signature.parameters.get(field)
    name = getattr(parameter.kwarg_definition, "name", None) if parameter else None
    return name or ("body" if field == "data" else field)
