"""OpenAI's Responses API, as far as its clients need it: a response is a run, a model names an agent or a model."""

import re
from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Request, Response, Router, get, post
from litestar.enums import MediaType
from litestar.params import FromPath, JSONBody, QueryParameter

from api.auth import Principal, authenticate
from api.body import JsonRequest
from api.commands.cancel_run import cancel_run
from api.commands.respond import respond
from api.commands.responses_model import list_models
from api.errors import STATUS, answer_in_form, not_found
from api.protocols.response_objects import response_of
from api.relay.await_end import await_end
from api.relay.hub import Subject
from api.resources import Resources
from api.routes.injection import Asker, Process
from api.routes.messages import IdempotencyKey
from api.routes.streams import admit_stream, stream_response
from common.errors import ErrorCode, ThroughlineError
from common.model.messages import Run
from common.model.responses import (
    ModelList,
    ModelObject,
    NewResponse,
    OpenAIError,
    OpenAIErrorDetail,
    ResponseObject,
    parse_id,
    response_id,
)
from common.model.run_state import RunState
from common.store.database import DATABASE_DOWN, workspace_transaction
from common.store.run_messages import select_run_messages
from common.store.runs import select_run

BROWSER_HEADERS = (
    "OpenAI-Organization",
    "OpenAI-Project",
    *(
        f"X-Stainless-{name}"
        for name in (
            *("Arch", "Custom-Poll-Interval", "Helper-Method", "Lang", "OS", "Package-Version", "Poll-Helper"),
            *("Retry-Count", "Runtime", "Runtime-Version", "Timeout"),
        )
    ),
)
"""What OpenAI's own client sends from a browser besides what all clients send."""

_PARAM = re.compile(r"([a-z_]+(?:\[\d+\]|\.[a-z_]+)*): (.*)", re.DOTALL)
_UNKNOWN_FIELD = re.compile(r"(?:([a-z_.]+): )?Object contains unknown field `([^`]*)`")
_OF_MODEL = {
    ErrorCode.UNKNOWN_AGENT: "model_not_found",
    ErrorCode.UNKNOWN_PROVIDER: "model_not_found",
    ErrorCode.PROVIDER_NOT_CONFIGURED: "provider_not_configured",
}
"""What `model` brings about, by OpenAI's names where it has one."""
_CODES = {
    **_OF_MODEL,
    ErrorCode.RATE_LIMITED: "rate_limit_exceeded",
    ErrorCode.BUDGET_EXCEEDED: "insufficient_quota",
}
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}

Stream = Annotated[bool, QueryParameter(name="stream", description="The response's events over SSE.")]
StartingAfter = Annotated[
    int | None, QueryParameter(name="starting_after", ge=0, lt=2**53, description="The last `sequence_number` seen.")
]


@post("/responses", status_code=200)
async def create_response(
    request: JsonRequest,
    resources: Process,
    principal: Asker,
    data: JSONBody[NewResponse],
    idempotency_key: IdempotencyKey = None,
) -> Response[Any]:
    """Begins a response: streamed, in the background, or answered once it has ended."""
    if not data.background:
        admit_stream(request, principal)
    run = await respond(resources, principal, data, idempotency_key)
    try:
        if data.stream:
            return await stream_response(request, principal, run, None, named_run=True, protocol="responses")
        if data.background and run.state is RunState.QUEUED:
            return _answer(response_of(run, []))  # As it was begun, however fast a worker is.
        if data.background or run.state.is_terminal or await _has_ended(request, resources, principal, run):
            return _answer(await _read(resources, principal, response_id(run.id)))
    except DATABASE_DOWN:
        pass
    return _goes_on(request, run)


@get("/responses/{id_text:str}")
async def retrieve_response(
    request: JsonRequest,
    resources: Process,
    principal: Asker,
    id_text: FromPath[str],
    stream: Stream = False,
    starting_after: StartingAfter = None,
) -> Response[Any]:
    """Reads a response; or streams it, from its first event or after one."""
    if not stream:
        return _answer(await _read(resources, principal, id_text))
    admit_stream(request, principal)
    run = await _find(resources, principal, id_text)
    return await stream_response(
        request, principal, run, None, named_run=True, protocol="responses", after=starting_after
    )


@post("/responses/{id_text:str}/cancel", status_code=200)
async def cancel_response(resources: Process, principal: Asker, id_text: FromPath[str]) -> Response[Any]:
    """Cancels a response; answers when it has ended, or after 2 s with what it is. Twice is fine."""
    run = await _find(resources, principal, id_text)
    await cancel_run(resources, principal, run.id)
    return _answer(await _read(resources, principal, id_text))


@get("/models")
async def get_models(resources: Process, principal: Asker) -> ModelList:
    """Lists what `model` can name."""
    async with workspace_transaction(resources.pool, principal.workspace_id) as connection:
        return await list_models(connection)


@get("/models/{name:path}")
async def get_model(resources: Process, principal: Asker, name: FromPath[str]) -> ModelObject:
    """Reads one of them."""
    async with workspace_transaction(resources.pool, principal.workspace_id) as connection:
        models = await list_models(connection)
    found = next((model for model in models.data if model.id == name.removeprefix("/")), None)
    if found is None:
        raise not_found()
    return found


async def _has_ended(request: JsonRequest, resources: Resources, principal: Principal, run: Run) -> bool:
    """Waits for the end; False when this process is about to stop."""
    try:
        return await await_end(resources.hub, Subject(principal.workspace_id, run.id), request.receive)
    except LookupError:
        raise not_found() from None


def _goes_on(request: JsonRequest, run: Run) -> Response[bytes]:
    """The response is there, and cannot be shown: a client that repeats its request by itself would begin another."""
    refusal = answer_openai_error(
        request,
        ThroughlineError(
            ErrorCode.UNAVAILABLE,
            f"This server cannot tell you more now. The response goes on: retrieve {response_id(run.id)}.",
        ),
    )
    refusal.headers["x-should-retry"] = "false"
    return refusal


async def _find(resources: Resources, principal: Principal, id_text: str) -> Run:
    run_id = parse_id(id_text, "resp")
    if run_id is None:
        raise not_found()
    async with workspace_transaction(resources.pool, principal.workspace_id) as connection:
        run = await select_run(connection, run_id)
    if run is None:
        raise not_found()
    return run


async def _read(resources: Resources, principal: Principal, id_text: str) -> ResponseObject:
    run_id = parse_id(id_text, "resp")
    if run_id is None:
        raise not_found()
    async with workspace_transaction(resources.pool, principal.workspace_id) as connection:
        # The run first: one that ends in between is then shown with its output, never without.
        run = await select_run(connection, run_id)
        if run is None:
            raise not_found()
        return response_of(run, await select_run_messages(connection, run_id))


def _answer(response: ResponseObject) -> Response[Any]:
    return Response(msgspec.json.encode(response), media_type=MediaType.JSON, status_code=200)


def answer_openai_error(request: "Request[Any, Any, Any]", error: Exception) -> Response[bytes]:
    """The answer to any exception, in the form that OpenAI's clients read."""
    answer = answer_in_form(request, error, _openai_form)
    if isinstance(error, ThroughlineError) and error.code is ErrorCode.BUDGET_EXCEEDED:
        answer.headers["x-should-retry"] = "false"  # The packages repeat every 429 by themselves.
    return answer


def _openai_form(error: ThroughlineError) -> OpenAIError:
    status = STATUS[error.code]
    param, message = _split(error.message)
    if error.code is ErrorCode.CONVERSATION_BUSY and error.details is not None:
        message += f" It is {response_id(UUID(error.details['runId']))}: wait for its end, or cancel it."
    return OpenAIError(
        error=OpenAIErrorDetail(
            message=message,
            type="server_error" if status >= 500 else _TYPES.get(status, "invalid_request_error"),
            param="model" if error.code in _OF_MODEL else param,
            code=_CODES.get(error.code, error.code),
        )
    )


def _split(message: str) -> tuple[str | None, str]:
    """The field that a refusal names, and the refusal with it."""
    unknown = _UNKNOWN_FIELD.fullmatch(message)
    if unknown is not None:
        place, field = unknown.groups()
        return field if place in (None, "body") else f"{place}.{field}", f"There is no parameter {field!r}."
    named = _PARAM.fullmatch(message)
    return (None if named is None or named[1] == "body" else named[1]), message


openai = Router(
    "/openai/v1",
    guards=[authenticate],
    exception_handlers={Exception: answer_openai_error},
    include_in_schema=False,
    route_handlers=[create_response, retrieve_response, cancel_response, get_models, get_model],
)
