"""Waiting for a run's end in an answer that is no stream."""

import asyncio
from contextlib import aclosing

from litestar.types import Receive

from api.relay.follow import Follower
from api.relay.hub import Hub, Subject
from api.relay.sse import HEARTBEAT_S


async def await_end(hub: Hub, subject: Subject, receive: Receive) -> bool:
    """Whether the run has ended; False once the client has left, or when this process is about to stop.

    Cancels nothing. `receive` is that of a request whose body has been read. Raises LookupError when the run's row
    is gone.
    """
    waiting = _Waiting()
    following = asyncio.create_task(_follow(hub, subject))
    leaving = asyncio.create_task(_await_departure(receive))
    hub.streams.add(waiting)
    try:
        if hub.closing:
            return False
        await asyncio.wait({following, leaving, waiting.aborted}, return_when=asyncio.FIRST_COMPLETED)
        if following.done():
            await following
        return following.done()
    finally:
        hub.streams.discard(waiting)
        waiting.abort()
        for task in (following, leaving):
            task.cancel()
        await asyncio.gather(following, leaving, return_exceptions=True)


class _Waiting:
    """What the hub ends when the process is about to stop."""

    def __init__(self) -> None:
        self.aborted: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def abort(self) -> None:
        if not self.aborted.done():
            self.aborted.set_result(None)

    def waiting_s(self, now: float) -> float:
        return 0.0


async def _follow(hub: Hub, subject: Subject) -> None:
    async with aclosing(Follower(hub, subject, None, HEARTBEAT_S).batches()) as groups:
        async for _ in groups:
            pass


async def _await_departure(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
