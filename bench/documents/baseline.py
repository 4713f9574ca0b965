"""What shared documents are compared with: the least that one would write.

One process that sends each message of a connection to all others of the same path. Nothing is stored, looked at or
merged: who comes later, or misses a message, lacks it for good. Run by `uvicorn bench.documents.baseline:app`.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

Message = dict[str, Any]
Send = Callable[[Message], Awaitable[None]]

_rooms: defaultdict[str, set[Send]] = defaultdict(set)


async def app(scope: Message, receive: Callable[[], Awaitable[Message]], send: Send) -> None:
    match scope["type"]:
        case "websocket":
            await _relay(scope["path"], receive, send)
        case "http":  # Whoever starts it asks whether it is ready.
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"ready"})
        case _:
            while (await receive())["type"] != "lifespan.shutdown":
                await send({"type": "lifespan.startup.complete"})
            await send({"type": "lifespan.shutdown.complete"})


async def _relay(path: str, receive: Callable[[], Awaitable[Message]], send: Send) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    room = _rooms[path]
    room.add(send)
    try:
        while (message := await receive())["type"] == "websocket.receive":
            for other in room - {send}:
                await other({"type": "websocket.send", "bytes": message["bytes"]})
    finally:
        room.discard(send)
        if not room:
            _rooms.pop(path, None)
