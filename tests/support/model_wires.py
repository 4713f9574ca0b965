"""The three wires of model providers: a `Reply` as the frames that the real service would send."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from tests.support.model_script import Call, Reply, pieces

_ARGUMENT_PIECE = 6
_STATUS_OF_ERROR = {"overloaded": 529, "rate_limited": 429, "server": 500, "rejected": 400}
_ANTHROPIC_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}
_OPENAI_ERRORS = {400: "invalid_request_error", 401: "invalid_api_key", 429: "rate_limit_exceeded"}


def frame(data: Any, *, named: bool = False) -> bytes:
    """One server-sent event, with its type as its name where the wire has that."""
    name = b"event: " + data["type"].encode() + b"\n" if named else b""
    return name + b"data: " + msgspec.json.encode(data) + b"\n\n"


def error_body(path: str, status: int, message: str) -> dict[str, Any]:
    """The JSON of an error answer on the wire of `path`."""
    if path.endswith("/messages"):
        kind = _ANTHROPIC_ERRORS.get(status, "api_error")
        return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_fake"}
    kind = _OPENAI_ERRORS.get(status, "server_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": kind}}


def anthropic_frames(reply: Reply, model: str) -> Iterator[bytes]:
    """The Messages API: blocks that start, grow and stop, between message_start and message_stop."""
    tokens = reply.tokens
    counts = {
        "input_tokens": tokens.input - tokens.cached - tokens.written,
        "cache_creation_input_tokens": tokens.written,
        "cache_read_input_tokens": tokens.cached,
        "output_tokens": 1,
    }
    message: dict[str, Any] = {
        "id": "msg_fake",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": counts,
    }
    yield frame({"type": "message_start", "message": message}, named=True)
    yield frame({"type": "ping"}, named=True)
    for index, (block, deltas) in enumerate(_anthropic_blocks(reply)):
        yield frame({"type": "content_block_start", "index": index, "content_block": block}, named=True)
        for delta in deltas:
            yield frame({"type": "content_block_delta", "index": index, "delta": delta}, named=True)
        yield frame({"type": "content_block_stop", "index": index}, named=True)
    if reply.error:
        kind = _ANTHROPIC_ERRORS[_STATUS_OF_ERROR[reply.error]]
        yield frame({"type": "error", "error": {"type": kind, "message": reply.error}}, named=True)
        return
    stop = {"length": "max_tokens", "refusal": "refusal"}.get(reply.stop)
    reason = stop or ("tool_use" if reply.calls else "end_turn")
    final: dict[str, Any] = {"output_tokens": tokens.output}
    if tokens.reasoning:
        final["output_tokens_details"] = {"thinking_tokens": tokens.reasoning}
    delta = {"stop_reason": reason, "stop_sequence": None}
    yield frame({"type": "message_delta", "delta": delta, "usage": final}, named=True)
    yield frame({"type": "message_stop"}, named=True)


def _anthropic_blocks(reply: Reply) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    if reply.reasoning:
        thinking = [{"type": "thinking_delta", "thinking": piece} for piece in pieces(reply.reasoning)]
        signature = {"type": "signature_delta", "signature": "c2lnbmF0dXJl"}
        yield {"type": "thinking", "thinking": "", "signature": ""}, [*thinking, signature]
    if reply.text:
        yield {"type": "text", "text": ""}, [{"type": "text_delta", "text": piece} for piece in pieces(reply.text)]
    for index, call in enumerate(reply.calls):
        deltas = [
            {"type": "input_json_delta", "partial_json": piece} for piece in ["", *pieces(call.json, _ARGUMENT_PIECE)]
        ]
        yield {"type": "tool_use", "id": call.id or f"toolu_{index}", "name": call.name, "input": {}}, deltas


def chat_frames(reply: Reply, model: str) -> Iterator[bytes]:
    """Chat completions: chunks with deltas, then the finish reason, the usage, and `[DONE]`."""

    def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return frame({**head, "choices": [choice]})

    head = {"id": "chatcmpl-fake", "object": "chat.completion.chunk", "created": 1763000000, "model": model}
    yield chunk({"role": "assistant", "content": "", "refusal": None})
    for piece in pieces(reply.reasoning):
        yield chunk({"reasoning_content": piece})
    for piece in pieces(reply.text):
        yield chunk({"refusal": piece} if reply.stop == "refusal" else {"content": piece})
    for index, call in enumerate(reply.calls):
        yield from (chunk({"tool_calls": [piece]}) for piece in _chat_call(index, call))
    if reply.error:
        code = _STATUS_OF_ERROR[reply.error]
        yield frame({**head, "error": {"code": code, "message": reply.error}, "choices": []})
        return
    yield chunk({}, "length" if reply.stop == "length" else "tool_calls" if reply.calls else "stop")
    tokens = reply.tokens
    usage = {
        "prompt_tokens": tokens.input,
        "completion_tokens": tokens.output,
        "total_tokens": tokens.input + tokens.output,
        "prompt_tokens_details": {"cached_tokens": tokens.cached, "cache_write_tokens": tokens.written},
        "completion_tokens_details": {"reasoning_tokens": tokens.reasoning},
    }
    yield frame({**head, "choices": [], "usage": usage})
    yield b"data: [DONE]\n\n"


def _chat_call(index: int, call: Call) -> Iterator[dict[str, Any]]:
    first = {"name": call.name, "arguments": ""}
    yield {"index": index, "id": call.id or f"call_{index}", "type": "function", "function": first}
    for piece in pieces(call.json, _ARGUMENT_PIECE):
        yield {"index": index, "function": {"arguments": piece}}


def responses_frames(reply: Reply, model: str) -> Iterator[bytes]:
    """The Responses API: numbered events about output items, then the whole response."""
    number = iter(range(100_000))

    def event(kind: str, **fields: Any) -> bytes:
        return frame({"type": kind, "sequence_number": next(number), **fields}, named=True)

    response: dict[str, Any] = {
        "id": "resp_fake",
        "object": "response",
        "created_at": 1763000000,
        "model": model,
        "output": [],
        "error": None,
        "incomplete_details": None,
        "usage": None,
    }
    yield event("response.created", response={**response, "status": "in_progress"})
    for index, (item, done, grow) in enumerate(_response_items(reply)):
        yield event("response.output_item.added", output_index=index, item=item)
        for kind, fields in grow:
            yield event(kind, item_id=item["id"], output_index=index, **fields)
        yield event("response.output_item.done", output_index=index, item=done)
    if reply.error:
        code = "rate_limit_exceeded" if reply.error == "rate_limited" else "server_error"
        code = "invalid_prompt" if reply.error == "rejected" else code
        failed = {**response, "status": "failed", "error": {"code": code, "message": reply.error}}
        yield event("response.failed", response=failed)
        return
    status = "incomplete" if reply.stop == "length" else "completed"
    details = {"reason": "max_output_tokens"} if reply.stop == "length" else None
    ended = {**response, "status": status, "incomplete_details": details, "usage": _response_usage(reply)}
    yield event(f"response.{status}", response=ended)


def _response_items(
    reply: Reply,
) -> Iterator[tuple[dict[str, Any], dict[str, Any], list[tuple[str, dict[str, Any]]]]]:
    """Each output item as it is added, as it is done, and the events in between."""
    if reply.reasoning:
        item: dict[str, Any] = {"id": "rs_fake", "type": "reasoning", "summary": []}
        summary = [{"type": "summary_text", "text": reply.reasoning}]
        grow = [
            ("response.reasoning_summary_text.delta", {"summary_index": 0, "delta": piece})
            for piece in pieces(reply.reasoning)
        ]
        yield item, {**item, "summary": summary, "encrypted_content": "ZW5jcnlwdGVk"}, grow
    if reply.text:
        item = {"id": "msg_fake", "type": "message", "role": "assistant", "content": [], "status": "in_progress"}
        kind = "response.refusal.delta" if reply.stop == "refusal" else "response.output_text.delta"
        grow = [(kind, {"content_index": 0, "delta": piece}) for piece in pieces(reply.text)]
        yield item, {**item, "status": "completed"}, grow
    for index, call in enumerate(reply.calls):
        item = {
            "id": f"fc_{index}",
            "type": "function_call",
            "call_id": call.id or f"call_{index}",
            "name": call.name,
            "arguments": "",
            "status": "in_progress",
        }
        grow = [
            ("response.function_call_arguments.delta", {"delta": piece}) for piece in pieces(call.json, _ARGUMENT_PIECE)
        ]
        yield item, {**item, "arguments": call.json, "status": "completed"}, grow


def _response_usage(reply: Reply) -> dict[str, Any]:
    tokens = reply.tokens
    return {
        "input_tokens": tokens.input,
        "input_tokens_details": {"cached_tokens": tokens.cached, "cache_write_tokens": tokens.written},
        "output_tokens": tokens.output,
        "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
        "total_tokens": tokens.input + tokens.output,
    }


WIRES: dict[str, Callable[[Reply, str], Iterator[bytes]]] = {
    "/messages": anthropic_frames,
    "/chat/completions": chat_frames,
    "/responses": responses_frames,
}
