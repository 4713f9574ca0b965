"""The AI SDK's chat (`useChat`, `DefaultChatTransport`): its wires are that project's, see docs/clients/ai-sdk.md."""

import re
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, Router, get, post
from litestar.enums import MediaType
from litestar.params import FromPath, HeaderParameter, JSONBody

from api.auth import Principal, authenticate
from api.body import JsonRequest, ShallowJsonRequest
from api.commands.chat import post_chat
from api.commands.chat_view import find_run_to_follow, read_history, stop_chat
from api.errors import answer_error
from api.protocols.ai_sdk_history import ui_messages
from api.relay.sse import EVENT_STREAM
from api.routes.injection import Asker, Process
from api.routes.streams import admit_stream, stream_response
from common.model.answers import ErrorAnswer
from common.model.messages import Run
from common.model.ui_messages import ChatRequest

MAX_CHAT_BYTES = 8_000_000
"""Unless told otherwise the client sends everything that it shows with each message."""
_RESETS_SINCE = 7
"""To be exact 7.0.70. Nothing in a request says which version the client has, so it must be told by the application."""

SdkVersion = Annotated[
    str | None,
    HeaderParameter(name="X-AI-SDK-Version", description="From 7 on, a step that is asked again replaces itself."),
]


@post(
    "/",
    status_code=200,
    media_type=EVENT_STREAM,
    request_class=ShallowJsonRequest,
    request_max_body_size=MAX_CHAT_BYTES,
)
async def post_ui_messages(
    request: ShallowJsonRequest,
    resources: Process,
    principal: Asker,
    data: JSONBody[ChatRequest],
    sdk_version: SdkVersion = None,
) -> Response[str]:
    """Answers the user's last message and streams the answer."""
    admit_stream(request, principal)
    return await _stream(request, principal, await post_chat(resources, principal, data), sdk_version)


@get("/{chat_name:str}/stream", media_type=EVENT_STREAM)
async def resume_ui_message(
    request: JsonRequest,
    resources: Process,
    principal: Asker,
    chat_name: FromPath[str],
    sdk_version: SdkVersion = None,
) -> Response[str]:
    """Streams the answer that is being given, from its beginning; 204 when there is none."""
    admit_stream(request, principal)
    run = await find_run_to_follow(resources, principal, chat_name)
    if run is None:
        return Response("", status_code=204, media_type=EVENT_STREAM)
    return await _stream(request, principal, run, sdk_version)


@post("/{chat_name:str}/stop", status_code=204)
async def stop_ui_message(resources: Process, principal: Asker, chat_name: FromPath[str]) -> None:
    """Cancels what the chat is doing. Twice, or with nothing to cancel, is fine."""
    await stop_chat(resources, principal, chat_name)


@get("/{chat_name:str}/messages")
async def list_ui_messages(resources: Process, principal: Asker, chat_name: FromPath[str]) -> Response[bytes]:
    """Lists the messages to start with, without the one that is being given: its stream tells that from its
    beginning."""
    history = await read_history(resources, principal, chat_name)
    return Response(msgspec.json.encode(ui_messages(*history)), media_type=MediaType.JSON)


async def _stream(request: JsonRequest, principal: Principal, run: Run, sdk_version: str | None) -> Response[str]:
    major = re.match(r"\d{1,4}", sdk_version or "", re.ASCII)
    protocol = "ai-sdk-7" if major is not None and int(major[0]) >= _RESETS_SINCE else "ai-sdk"
    return await stream_response(request, principal, run, None, named_run=False, protocol=protocol)


def answer_in_words(request: "Request[Any, Any, Any]", error: Exception) -> Response[str]:
    """The answer to any exception as text, since the client shows the body to the user; its code is a header."""
    answer = answer_error(request, error)
    detail = msgspec.json.decode(answer.content, type=ErrorAnswer).error
    return Response(
        detail.message,
        status_code=answer.status_code,
        media_type=MediaType.TEXT,
        headers={**answer.headers, "X-Error-Code": detail.code},
    )


ai_sdk = Router(
    "/ai/chat",
    guards=[authenticate],
    exception_handlers={Exception: answer_in_words},
    include_in_schema=False,
    route_handlers=[post_ui_messages, resume_ui_message, stop_ui_message, list_ui_messages],
)
