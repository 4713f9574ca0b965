"""A client who asks until it is answered, whatever dies meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import httpx

from tests.support.system import Client

_PAUSE_S = 0.05


async def insist(
    ask: Callable[[], Awaitable[httpx.Response]], expected: Sequence[int] = (202,), limit_s: float = 60
) -> httpx.Response:
    """The first answer with an `expected` status. Lost connections and 503 (with Retry-After) are met by asking again.

    Any other answer fails, and so does the lack of one after `limit_s` seconds.
    """
    last = "nothing"
    try:
        async with asyncio.timeout(limit_s):
            while True:
                try:
                    answer = await ask()
                except httpx.TransportError as error:
                    last = repr(error)
                else:
                    if answer.status_code in expected:
                        return answer
                    last = f"{answer.status_code} {answer.text}"
                    assert answer.status_code == 503, last
                    assert int(answer.headers["retry-after"]) >= 0
                await asyncio.sleep(_PAUSE_S)
    except TimeoutError:
        raise AssertionError(f"no answer within {limit_s} s, at last {last}") from None


async def insist_on_conversation(client: Client) -> str:
    """The id of a new conversation, however often the API dies over it."""
    answer = await insist(lambda: client.http.post("/v1/conversations", json={}), (201,))
    return str(answer.json()["id"])
