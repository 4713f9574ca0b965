"""What the real services refuse in a history: the rules that a conversation must keep, whatever happened in it."""

from typing import Any


def find_violation(path: str, body: dict[str, Any]) -> str | None:
    """The first broken rule of the wire of `path`, in words, or None."""
    if path.endswith("/messages"):
        return _check_anthropic(body)
    if path.endswith("/chat/completions"):
        return _check_chat(body)
    return _check_responses(body)


def _check_anthropic(body: dict[str, Any]) -> str | None:
    """Each call has its result at the head of the next message, and no text is blank."""
    messages: list[dict[str, Any]] = body["messages"]
    if not messages or messages[0]["role"] != "user":
        return "messages: the first message must use the user role"
    if "max_tokens" not in body:
        return "max_tokens: field required"
    open_calls: list[str] = []
    for at, message in enumerate(messages):
        blocks = message["content"]
        if isinstance(blocks, str):
            blocks = [{"type": "text", "text": blocks}]
        if not blocks:
            return f"messages.{at}: content must not be empty"
        if any(block["type"] == "text" and not block["text"].strip() for block in blocks):
            return f"messages.{at}: text content blocks must contain non-whitespace text"
        results = [block["tool_use_id"] for block in blocks if block["type"] == "tool_result"]
        if sorted(results) != sorted(open_calls):
            return f"messages.{at}: tool_use ids {open_calls} need their tool_result blocks here, found {results}"
        if any(block["type"] != "tool_result" for block in blocks[: len(results)]):
            return f"messages.{at}: tool_result blocks must come first"
        open_calls = [block["id"] for block in blocks if block["type"] == "tool_use"]
        if (open_calls or results) and not body.get("tools"):
            return "requests which include tool_use or tool_result blocks must define tools"
    return f"tool_use ids without tool_result: {open_calls}" if open_calls else None


def _check_chat(body: dict[str, Any]) -> str | None:
    """The tool messages that answer a message's calls follow it at once, each call answered once."""
    open_calls: list[str] = []
    for at, message in enumerate(body["messages"]):
        if message["role"] == "tool":
            if message["tool_call_id"] not in open_calls:
                return f"messages.{at}: a tool message must answer a preceding tool call"
            open_calls.remove(message["tool_call_id"])
            continue
        if open_calls:
            return f"messages.{at}: tool calls {open_calls} did not have response messages"
        if message["content"] is None and not message.get("tool_calls"):
            return f"messages.{at}: content must be a string"
        open_calls = [call["id"] for call in message.get("tool_calls", [])]
    return f"tool calls {open_calls} did not have response messages" if open_calls else None


def _check_responses(body: dict[str, Any]) -> str | None:
    """Each output names an earlier call, each call has one output, reasoning is followed by what it led to."""
    open_calls: set[str] = set()
    items: list[dict[str, Any]] = body["input"]
    for at, item in enumerate(items):
        kind = item.get("type", "message")
        if kind == "function_call":
            open_calls.add(item["call_id"])
        elif kind == "function_call_output":
            if item["call_id"] not in open_calls:
                return f"No tool call found for function call output with call_id {item['call_id']}."
            open_calls.remove(item["call_id"])
        elif kind == "message" and item["role"] == "user" and open_calls:
            return f"No tool output found for function calls {sorted(open_calls)}."
        elif kind == "reasoning" and (at + 1 == len(items) or items[at + 1].get("role") == "user"):
            return f"Item '{item['id']}' of type 'reasoning' was provided without its required following item."
    return f"No tool output found for function calls {sorted(open_calls)}." if open_calls else None
