"""A client's place at the hub: nothing that comes is overlooked."""

import asyncio

from api.relay.batch import Batch
from api.relay.client import Arrival, Client
from common.eventlog.log import LogEvent
from common.ids import EventId

STARTED = EventId(1, 1)
ARRIVAL = Arrival(STARTED, STARTED, Batch([LogEvent(STARTED, b'{"type":"started"}')]), 18)


async def test_client_does_not_wait_for_what_came_while_it_read() -> None:
    """What is published during a read of the log, which did not find it, is handed on at once."""
    client = Client()
    client.catch_up()
    client.push(ARRIVAL)
    async with asyncio.timeout(1):
        assert await client.wait(3600)
    assert client.take() == [ARRIVAL]


async def test_client_waits_for_what_is_not_there_yet() -> None:
    """An arrival ends the wait; without one it lasts for its time."""
    client = Client()
    client.catch_up()
    asyncio.get_running_loop().call_soon(client.push, ARRIVAL)
    async with asyncio.timeout(1):
        assert await client.wait(3600)
    client.take()
    assert not await client.wait(0.01)
