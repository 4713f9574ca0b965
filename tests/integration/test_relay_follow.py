"""A follower's way through a run: replay, live, and what it does when the log is not what it was."""

import asyncio
import itertools

import pytest
from redis.asyncio import Redis

from api.relay import hub as hub_module
from api.relay.batch import Batch
from api.relay.follow import Follower
from api.relay.hub import Hub, Subject
from common.eventlog.keys import events_key, head_key, live_channel
from common.eventlog.log import EventLog, LogEvent
from common.ids import EventId
from common.model.events import Started, Token, decode_event, encode_event
from common.store.database import Pool
from tests.support.eventually import eventually
from tests.support.player import Player
from tests.support.relay_reader import Reader


async def test_follow_from_the_start(hub: Hub, pool: Pool, log: EventLog) -> None:
    """What was appended before and after joining is told once, in order, and the end ends it."""
    player = await Player.begin(pool, log)
    await player.tell("a", "b")
    reader = Reader(hub, player)
    await reader.told("started", "a", "b")
    await player.tell("c")
    await player.end()
    assert await reader.ended() == ["started", "a", "b", "c", "done"]
    assert reader.ids == ["1-1", "1-2", "1-3", "1-4", "1-5"]


async def test_follow_of_a_queued_run(hub: Hub, pool: Pool, log: EventLog) -> None:
    """A run that nobody runs yet is followed from its first event."""
    player = await Player.queue(pool, log)
    reader = Reader(hub, player)
    await eventually(lambda: hub.subscriptions)
    await player.start()
    await player.end()
    assert await reader.ended() == ["started", "done"]


async def test_follow_from_every_cursor(hub: Hub, pool: Pool, log: EventLog) -> None:
    """From any event on, exactly the rest is told: while the run goes on, and when it is over."""
    player = await Player.begin(pool, log)
    await player.tell("a", "b")
    await player.tell("c")
    cursors = [EventId(1, n) for n in range(1, player.n + 1)]
    live = [Reader(hub, player, cursor) for cursor in cursors]
    for reader, cursor in zip(live, cursors, strict=True):
        await reader.told(*["started", "a", "b", "c"][cursor.n :])
    await player.start_again()
    end = await player.end()
    every = ["started", "a", "b", "c", "started", "done"]
    for reader, cursor in zip(live, cursors, strict=True):
        assert await reader.ended() == every[cursor.n :]
    late = [Reader(hub, player, cursor, end) for cursor in [*cursors, EventId(2, 1)]]
    for n, reader in enumerate(late, 1):
        assert await reader.ended() == every[n:]
        assert reader.ids[-1] == "2-2"


async def test_follow_with_a_publication_lost(hub: Hub, pool: Pool, log: EventLog, redis: Redis) -> None:
    """A hole in what is published is filled from the stream."""
    player = await Player.begin(pool, log)
    reader = Reader(hub, player)
    await reader.told("started")
    lost = encode_event(Token(content="lost"))
    await redis.xadd(events_key(player.id), {"d": lost}, id="1-2")
    await redis.hincrby(head_key(player.id), "n", 1)  # type: ignore[misc]
    player.n = 2
    await player.tell("found")
    await reader.told("started", "lost", "found")
    assert reader.ids == ["1-1", "1-2", "1-3"]
    await reader.leave()


async def test_follow_with_a_publication_repeated_or_malformed(
    hub: Hub, pool: Pool, log: EventLog, redis: Redis
) -> None:
    """What was told is not told again, and what nobody understands is read from the stream."""
    player = await Player.begin(pool, log)
    await player.tell("a")
    reader = Reader(hub, player)
    await reader.told("started", "a")
    await redis.publish(live_channel(player.id), b"1-2-2\n" + encode_event(Token(content="a")))
    await redis.publish(live_channel(player.id), b"what?")
    await player.tell("b")
    await reader.told("started", "a", "b")
    await reader.leave()


async def test_follow_of_a_publication_without_events(hub: Hub, pool: Pool, log: EventLog) -> None:
    """A batch too large to be published is read from the stream."""
    player = await Player.begin(pool, log)
    reader = Reader(hub, player)
    await reader.told("started")
    await player.tell("x" * 300_000)
    await reader.told("started", "x" * 300_000)
    await reader.leave()


async def test_follow_beyond_one_page(hub: Hub, pool: Pool, log: EventLog) -> None:
    """A long run is replayed whole, page by page."""
    player = await Player.begin(pool, log)
    words = [str(n) for n in range(2000)]
    for start in range(0, 2000, 400):
        await player.tell(*words[start : start + 400])
    end = await player.end()
    assert await Reader(hub, player, None, end).ended() == ["started", *words, "done"]
    assert await Reader(hub, player, EventId(1, 1001), end).ended() == [*words[1000:], "done"]


async def test_follow_of_an_unknown_cursor(hub: Hub, pool: Pool, log: EventLog) -> None:
    """A cursor ahead of the log: `started` and what is known come without ids, newer events with theirs."""
    player = await Player.begin(pool, log)
    await player.tell("a", "b")
    reader = Reader(hub, player, EventId(1, 4))
    await reader.told("started", "a", "b")
    await player.tell("c", "d")
    await reader.told("started", "a", "b", "c", "d")
    assert reader.ids == [None, None, None, None, "1-5"]
    await reader.leave()


async def test_follow_of_a_trimmed_cursor(hub: Hub, pool: Pool, log: EventLog, redis: Redis) -> None:
    """A cursor that was trimmed away: a `started` without an id, then the log from its first event."""
    player = await Player.begin(pool, log)
    await player.tell("a")
    await player.start_again()
    await player.tell("b")
    await redis.xtrim(events_key(player.id), minid="2-1", approximate=False)
    reader = Reader(hub, player, EventId(1, 2))
    await reader.told("started", "started", "b")
    assert reader.ids == [None, "2-1", "2-2"]
    await reader.leave()


async def test_follow_of_a_cursor_whose_log_is_gone(hub: Hub, pool: Pool, log: EventLog, redis: Redis) -> None:
    """The log was lost: a `started` without an id at once, and the next attempt when it begins."""
    player = await Player.begin(pool, log)
    await player.tell("a")
    await redis.flushall()
    reader = Reader(hub, player, EventId(1, 2))
    await reader.told("started")
    await player.start_again()
    await player.tell("b")
    await reader.told("started", "started", "b")
    assert reader.ids == [None, "2-1", "2-2"]
    await reader.leave()


async def test_follow_with_the_log_lost_meanwhile(hub: Hub, pool: Pool, log: EventLog, redis: Redis) -> None:
    """FLUSHALL in mid-run: the client sees `started` of the new attempt, ids go on increasing, the end is
    told.
    """
    player = await Player.begin(pool, log)
    await player.tell("a")
    reader = Reader(hub, player)
    await reader.told("started", "a")
    await redis.flushall()
    await player.start_again()
    await player.tell("b")
    await player.end()
    assert await reader.ended() == ["started", "a", "started", "b", "done"]
    assert reader.ids == ["1-1", "1-2", "2-1", "2-2", "2-3"]


async def test_follow_of_an_ended_run_without_a_stream(hub: Hub, pool: Pool, log: EventLog, redis: Redis) -> None:
    """The stream is gone: Postgres gives a `started` without an id and the terminal event with its own."""
    player = await Player.begin(pool, log)
    await player.tell("a")
    end = await player.end()
    await redis.flushall()
    for cursor in (None, EventId(1, 2), EventId(1, 1)):
        reader = Reader(hub, player, cursor, end)
        assert await reader.ended() == ["started", "done"]
        assert reader.ids == [None, "1-3"]


async def test_follow_of_an_end_that_nobody_appended(
    hub: Hub, pool: Pool, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner died between settling and appending: the poll finds the end and tells it from Postgres."""
    monkeypatch.setattr(hub_module, "_POLL_S", 0.2)
    player = await Player.begin(pool, log)
    await player.tell("a")
    reader = Reader(hub, player)
    await reader.told("started", "a")
    await player.end(tell_log=False)
    assert await reader.ended() == ["started", "a", "started", "done"]
    assert reader.ids == ["1-1", "1-2", None, "1-3"]


async def test_follow_reads_large_events_a_few_at_a_time(hub: Hub, pool: Pool, log: EventLog) -> None:
    """A client that takes nothing holds little: pages are cut by their bytes, not only by their number of events."""
    player = await Player.begin(pool, log)
    for _ in range(100):
        await player.tell("x" * 32_000)
    await player.end()
    follower = Follower(hub, Subject(player.workspace_id, player.id), None, idle_s=15)
    groups = [batches async for batches in follower.batches()]
    sizes = [sum(len(event.data) for batch in batches for event in batch.events) for batches in groups]
    assert sum(sizes) > 100 * 32_000
    assert max(sizes) < 32 * 33_000, "the first page"
    assert max(sizes[1:]) < 300_000


_LARGE = ["a" * 600_000, "b" * 600_000]


async def test_started_that_names_its_messages_is_made_whole(hub: Hub, pool: Pool, log: EventLog, redis: Redis) -> None:
    """Who cannot fetch messages by id gets them in `started`, live, in a replay and at a repaired cursor; others do
    not. What was committed later comes as its own event."""
    player = await Player.begin(pool, log)
    watching, native = (Reader(hub, player, whole=whole) for whole in (True, False))
    for text in _LARGE:
        await player.commit_step(text)
    await watching.told("started", "step", "step")
    await player.start_again()
    await player.commit_step("c")
    replaying = Reader(hub, player, EventId(1, 3), whole=True)
    end = await player.end()
    everything = [await reader.ended() for reader in (watching, replaying)]
    assert everything == [["started", "step", "step", "started", "step", "done"], ["started", "step", "done"]]
    await redis.xtrim(events_key(player.id), minid="2-1", approximate=False)
    repaired = Reader(hub, player, EventId(1, 2), end, whole=True)
    assert await repaired.ended() == ["started", "started", "step", "done"]

    for reader, places in ((watching, (3,)), (replaying, (0,)), (repaired, (0, 1))):
        for place in places:
            started = decode_event(reader.events[place].data)
            assert isinstance(started, Started)
            assert [message.content for message in started.messages or ()] == _LARGE
            assert started.message_ids is None
    assert await native.ended() == ["started", "step", "step", "started", "step", "done"]
    short = decode_event(native.events[3].data)
    assert isinstance(short, Started)
    assert (short.messages, len(short.message_ids or ())) == (None, 2)


async def test_stored_end_is_made_whole(hub: Hub, pool: Pool, log: EventLog, redis: Redis) -> None:
    """Once the log is gone, the end from Postgres brings the messages as well, however large."""
    player = await Player.begin(pool, log)
    for text in _LARGE:
        await player.commit_step(text)
    end = await player.end()
    await redis.delete(events_key(player.id), head_key(player.id))

    reader = Reader(hub, player, None, end, whole=True)

    assert await reader.ended() == ["started", "done"]
    started = decode_event(reader.events[0].data)
    assert isinstance(started, Started)
    assert [message.content for message in started.messages or ()] == _LARGE


async def test_follow_hands_on_what_merely_continues(hub: Hub, pool: Pool, log: EventLog) -> None:
    """Whatever is taken directly and whatever is not, over a new attempt, too: each event comes once and in order, and
    the end comes from the follower.
    """
    player = await Player.begin(pool, log)
    told, directly, ways = list[LogEvent](), list[str](), itertools.cycle([True, True, False])

    def direct(batch: Batch) -> bool:
        takes = next(ways)
        if takes:
            told.extend(batch.events)
            directly.extend(str(event.id) for event in batch.events)
        return takes

    async def follow() -> None:
        follower = Follower(hub, Subject(player.workspace_id, player.id), None, idle_s=15)
        async for batches in follower.batches(direct):
            for batch in batches:
                told.extend(batch.events)

    following = asyncio.create_task(follow())
    await eventually(lambda: len(told) == 1)
    for attempt in (1, 2):
        for word in "abcdef":
            await player.tell(word)
            await asyncio.sleep(0)
        if attempt == 1:
            await player.start_again()
    await eventually(lambda: len(told) == 14)
    await player.end()
    await asyncio.wait_for(following, 10)
    assert [str(event.id) for event in told] == [f"{a}-{n}" for a in (1, 2) for n in range(1, 8)] + ["2-8"]
    assert directly
    assert not {"1-1", "2-1", "2-8"} & set(directly)
