"""What the clients of one process share: subscriptions, frames, ends that others did not live to tell."""

import asyncio

import pytest
from redis.asyncio import Redis

from api.relay import hub as hub_module
from api.relay.batch import Batch
from api.relay.hub import Hub
from common.eventlog.keys import live_channel
from common.eventlog.log import EventLog, LogEvent
from common.ids import EventId
from common.model.events import Token, encode_event
from common.model.run_state import CancelReason
from common.settle import CancelledBy, settle
from common.store.database import Pool, workspace_transaction
from common.store.run_transitions import hand_back
from tests.support.eventually import eventually
from tests.support.player import Player
from tests.support.relay_reader import Reader


async def test_hub_under_comings_and_goings(hub: Hub, pool: Pool, log: EventLog, redis: Redis) -> None:
    """However fast clients of a run come and go, those who stay hear everything, and nothing is left of the others."""
    player = await Player.begin(pool, log)
    for round_ in range(30):
        leaving = [Reader(hub, player) for _ in range(3)]
        await asyncio.sleep(0.001 * (round_ % 3))
        await asyncio.gather(*(reader.leave() for reader in leaving))
    staying = Reader(hub, player)
    await staying.told("started")
    await player.tell("a")
    await staying.told("started", "a")
    assert (hub.clients, hub.subscriptions) == (1, 1)
    await staying.leave()
    assert (hub.clients, hub.subscriptions) == (0, 0)

    async def unsubscribed() -> bool:
        ((_, subscribers),) = await redis.pubsub_numsub(live_channel(player.id))
        return bool(subscribers == 0)

    await eventually(unsubscribed)


async def test_hub_of_many_runs(hub: Hub, pool: Pool, log: EventLog) -> None:
    """Each client hears its own run alone."""
    players = [await Player.begin(pool, log) for _ in range(10)]
    readers = [Reader(hub, player) for player in players]
    for number, player in enumerate(players):
        await player.tell(f"of {number}")
        await player.end()
    for number, reader in enumerate(readers):
        assert await reader.ended() == ["started", f"of {number}", "done"]
    await eventually(lambda: (hub.clients, hub.subscriptions) == (0, 0))  # The last ones may leave together.


async def test_hub_tells_the_log_an_end(hub: Hub, pool: Pool, log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who ended the run died before telling its log: the first relay that finds it does, under the same ids."""
    monkeypatch.setattr(hub_module, "_POLL_S", 0.2)
    player = await Player.begin(pool, log)
    reader = Reader(hub, player)
    await reader.told("started")
    async with workspace_transaction(pool, player.workspace_id) as connection:
        assert await hand_back(connection, player.id, player.attempt)
    settled = await settle(pool, player.workspace_id, player.id, CancelledBy(CancelReason.USER), by="api")
    assert settled is not None
    assert await reader.ended() == ["started", "started", "cancelled"]
    assert reader.ids == ["1-1", None, "2-2"]
    told = await log.read_after(player.id, EventId(1, 1), 10)
    assert [str(event.id) for event in told] == ["2-1", "2-2"]
    assert told[1].data == settled.terminal


class CountingFold:
    """Counts how often it encodes."""

    def __init__(self, shared: str | None) -> None:
        self.shared = shared
        self.calls = 0

    def encode(self, events: object) -> bytes:
        self.calls += 1
        return b"frames of %b" % repr(events).encode()


def test_batch_is_encoded_once_for_those_who_share() -> None:
    """Folds of one name share their bytes; a fold that remembers is asked itself."""
    batch = Batch([LogEvent(EventId(1, 2), encode_event(Token(content="a")))])
    first, second, own = CountingFold("same"), CountingFold("same"), CountingFold(None)
    assert batch.frames(first) == batch.frames(second) == batch.frames(own)
    assert (first.calls, second.calls, own.calls) == (1, 0, 1)
