"""Streams over HTTP: their very bytes, where they begin, who may read them, and how they stop."""

import asyncio
import socket
import time
from uuid import UUID

import httpx
import msgspec
import pytest
from redis.asyncio import Redis

from api.relay import hub as hub_module
from api.relay import sse
from api.relay.hub import Hub
from api.resources import Resources
from api.server import Server
from common.ids import new_id
from common.model.messages import Run
from tests.support.api_client import LiveApi, make_token
from tests.support.eventually import eventually
from tests.support.player import Player
from tests.support.raw_stream import Frame, RawStream


@pytest.fixture
async def player(api: LiveApi) -> Player:
    """A run that has said "a" and "b"."""
    player = await begin(api)
    await player.tell("a", "b")
    return player


def hub_of(api: LiveApi) -> Hub:
    return resources_of(api).hub


def resources_of(api: LiveApi) -> Resources:
    resources: Resources = api.app.state.resources
    return resources


async def begin(api: LiveApi, workspace_id: UUID | None = None, conversation_id: UUID | None = None) -> Player:
    resources = resources_of(api)
    return await Player.begin(resources.pool, resources.log, workspace_id, conversation_id)


def token(api: LiveApi, player: Player, role: str = "member", lifetime_s: float = 600) -> str:
    return make_token(api.settings.jwt_secret, (player.workspace_id, role), exp=time.time() + lifetime_s)


def bearer(api: LiveApi, player: Player, role: str = "member", lifetime_s: float = 600) -> dict[str, str]:
    return {"authorization": f"Bearer {token(api, player, role, lifetime_s)}"}


async def open_run(api: LiveApi, player: Player, query: str = "", **headers: str) -> RawStream:
    url = f"{api.url}/v1/runs/{player.id}/stream{query}"
    return await RawStream.open(url, {**bearer(api, player), **headers})


async def open_conversation(api: LiveApi, player: Player, query: str = "", **headers: str) -> RawStream:
    url = f"{api.url}/v1/conversations/{player.run.conversation_id}/stream{query}"
    return await RawStream.open(url, {**bearer(api, player), **headers})


def texts(frames: list[Frame]) -> list[str]:
    return [frame.text for frame in frames]


def ids(frames: list[Frame]) -> list[str | None]:
    return [frame.id for frame in frames]


async def test_stream_has_the_promised_bytes(api: LiveApi, player: Player) -> None:
    """Headers, opening comment, unnamed frames with LF only, the event's JSON untouched, a clean end after `done`."""
    stream = await open_run(api, player)
    assert stream.status == 200
    assert stream.headers["content-type"] == "text/event-stream"
    assert stream.headers["cache-control"] == "no-cache, no-transform"
    assert stream.headers["x-accel-buffering"] == "no"
    assert "server" not in stream.headers
    await stream.read_until(b'"b"}\n\n')
    started, _, rest = stream.body.removeprefix(b":ok\nid: 1-1\ndata: ").partition(b"\n\n")
    logged = await resources_of(api).log.read_after(player.id, None, 10)
    assert started == logged[0].data
    assert rest == b'id: 1-2\ndata: {"type":"token","content":"a"}\n\nid: 1-3\ndata: %b\n\n' % logged[2].data
    await player.end()
    frames = await stream.read_to_end()
    assert texts(frames) == ["started", "a", "b", "done"]
    assert stream.ended_cleanly
    assert b"\r" not in stream.body


async def test_stream_of_a_silent_run_begins_at_once(api: LiveApi) -> None:
    """The head and the opening comment come although nothing has happened in the run yet."""
    queued = await Player.queue(resources_of(api).pool, resources_of(api).log)
    stream = await open_run(api, queued)
    assert await stream.read_until(b"\n", 1) == b":ok\n"
    stream.close()


async def test_stream_of_a_post_answers_200(api: LiveApi, player: Player) -> None:
    """A POST that asks for the stream gets it with status 200, and ids that name the run."""
    await player.end()
    url = f"{api.url}/v1/conversations/{player.run.conversation_id}/messages"
    headers = {**bearer(api, player), "accept": "text/event-stream"}
    async with (
        httpx.AsyncClient(headers=headers) as client,
        client.stream("POST", url, json={"content": "Again"}) as answer,
    ):
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream"
        chunks = answer.aiter_bytes()
        assert await anext(chunks) == b":ok\n"
        runs = await client.get(f"{api.url}/v1/runs", params={"state": "queued"}, headers={"accept": "*/*"})
        run = msgspec.convert(runs.json()["data"][0], Run)
        posted = Player(resources_of(api).pool, resources_of(api).log, player.workspace_id, run)
        await posted.start()
        assert (await anext(chunks)).startswith(f"id: {run.id}:1-1\ndata: ".encode())


async def test_stream_heartbeat_is_one_line(api: LiveApi, player: Player, monkeypatch: pytest.MonkeyPatch) -> None:
    """In silence comes `: hb` with one line feed, and the next frame is whole all the same."""
    monkeypatch.setattr(sse, "HEARTBEAT_S", 0.05)
    stream = await open_run(api, player, "?after=1-3")
    await stream.read_until(b": hb\n: hb\n")
    await player.tell("c")
    body = await stream.read_until(b"}\n\n")
    assert body.startswith(b":ok\n: hb\n: hb\n")
    frame = b'id: 1-4\ndata: {"type":"token","content":"c"}\n\n'
    assert body.removeprefix(b":ok\n").replace(b": hb\n", b"") == frame
    stream.close()


async def test_stream_resumes_after_any_cursor(api: LiveApi, player: Player) -> None:
    """Every id of a run, in both forms, by header or query, gives exactly what follows it; the last one gives 204."""
    await player.tell("c")
    await player.start_again()
    await player.tell("d")
    await player.end()
    whole = await (await open_run(api, player)).read_to_end()
    assert ids(whole) == ["1-1", "1-2", "1-3", "1-4", "2-1", "2-2", "2-3"]
    for position, frame in enumerate(whole[:-1], 1):
        for cursor in (frame.id, f"{player.id}:{frame.id}"):
            by_header = await open_run(api, player, **{"last-event-id": str(cursor)})
            by_query = await open_run(api, player, f"?after={cursor}")
            assert await by_header.read_to_end() == await by_query.read_to_end() == whole[position:]
    for past in ("2-3", "2-4", "3-1", f"{player.id}:2-3"):
        stream = await open_run(api, player, f"?after={past}")
        assert (stream.status, stream.body) == (204, b"")


async def test_stream_header_wins_over_the_query(api: LiveApi, player: Player) -> None:
    """An EventSource reconnects with its old URL and a newer Last-Event-ID."""
    stream = await open_run(api, player, "?after=1-1", **{"last-event-id": "1-2"})
    await stream.read_until(b'"b"}\n\n')
    assert ids(stream.frames) == ["1-3"]
    stream.close()


async def test_stream_refuses_a_malformed_cursor(api: LiveApi, player: Player) -> None:
    """400 invalid_cursor, on both kinds of stream, by query and by header."""
    async with httpx.AsyncClient(headers=bearer(api, player)) as client:
        for path in (f"runs/{player.id}", f"conversations/{player.run.conversation_id}"):
            url = f"{api.url}/v1/{path}/stream"
            for cursor in ("", "1", "1-", "-1", "1-2-3", "a-b", "1-2 ", "x:1-2", "1-" + "9" * 30, "١-٢"):
                answer = await client.get(url, params={"after": cursor})
                assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_cursor"), cursor
            answer = await client.get(url, params={"after": "1-1"}, headers={"last-event-id": "x"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_cursor")


async def test_stream_refuses_a_cursor_of_another_run(api: LiveApi, player: Player) -> None:
    """400, whether that run exists here, elsewhere, or nowhere: the answer is the same."""
    other = await begin(api, player.workspace_id)
    foreign = await begin(api)
    async with httpx.AsyncClient(headers=bearer(api, player)) as client:
        for path in (f"runs/{player.id}", f"conversations/{player.run.conversation_id}"):
            answers = [
                await client.get(f"{api.url}/v1/{path}/stream", params={"after": f"{run_id}:1-1"})
                for run_id in (other.id, foreign.id, new_id())
            ]
            assert [answer.status_code for answer in answers] == [400, 400, 400]
            assert len({answer.content for answer in answers}) == 1


async def test_stream_is_404_for_what_is_not_here(api: LiveApi, player: Player) -> None:
    """An unknown id and one of another workspace get the same bytes; a conversation without a run is `no_run`."""
    foreign = await begin(api)
    conversation_id = player.run.conversation_id
    async with httpx.AsyncClient(headers=bearer(api, player)) as client:
        for path, known in (("runs", foreign.id), ("conversations", foreign.run.conversation_id)):
            answers = [await client.get(f"{api.url}/v1/{path}/{id_}/stream") for id_ in (known, new_id())]
            assert [answer.status_code for answer in answers] == [404, 404]
            assert answers[0].content == answers[1].content
        answer = await client.get(
            f"{api.url}/v1/conversations/{conversation_id}/stream", params={"triggerMessageId": str(new_id())}
        )
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_run")
        created = await client.post(f"{api.url}/v1/conversations", json={})
        answer = await client.get(f"{api.url}/v1/conversations/{created.json()['id']}/stream")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_run")


async def test_stream_of_a_conversation_names_the_run_in_its_ids(api: LiveApi, player: Player) -> None:
    """The active, else the latest run is followed, its id before each event.s; a cursor leads back to its run."""
    await player.end()
    stream = await open_conversation(api, player)
    assert ids(await stream.read_to_end()) == [f"{player.id}:1-{n}" for n in range(1, 5)]
    later = await begin(api, player.workspace_id, player.run.conversation_id)
    stream = await open_conversation(api, player)
    await stream.read_until(b"\nid")
    resumed = await open_conversation(api, player, **{"last-event-id": f"{player.id}:1-2"})
    assert ids(await resumed.read_to_end()) == [f"{player.id}:1-3", f"{player.id}:1-4"]
    triggered = await open_conversation(api, player, f"?triggerMessageId={player.run.trigger_message_id}&after=1-3")
    assert ids(await triggered.read_to_end()) == [f"{player.id}:1-4"]
    await later.end()
    assert ids(await stream.read_to_end()) == [f"{later.id}:1-1", f"{later.id}:1-2"]


async def test_stream_roles_and_tokens(api: LiveApi, player: Player) -> None:
    """A viewer may read; without a token 401; a token in the URL is refused even beside a good header."""
    viewer = bearer(api, player, "viewer")
    url = f"{api.url}/v1/runs/{player.id}/stream"
    stream = await RawStream.open(url, viewer)
    assert stream.status == 200
    stream.close()
    assert (await RawStream.open(url)).status == 401
    secret = token(api, player)
    assert (await RawStream.open(f"{url}?token={secret}")).status == 400
    assert (await RawStream.open(f"{url}?access_token={secret}", viewer)).status == 400


async def test_stream_by_ticket(api: LiveApi, player: Player) -> None:
    """A ticket opens the stream that it was minted for, and again on reconnect; no other, and no invented one."""
    other = await begin(api, player.workspace_id)
    async with httpx.AsyncClient(headers=bearer(api, player, "viewer")) as client:
        for kind, mine, others in (
            ("run", player.id, other.id),
            ("conversation", player.run.conversation_id, other.run.conversation_id),
        ):
            answer = await client.post(f"{api.url}/v1/tickets", json={f"{kind}Id": str(mine)})
            ticket = answer.json()["ticket"]
            for _ in range(2):
                stream = await RawStream.open(f"{api.url}/v1/{kind}s/{mine}/stream?ticket={ticket}")
                assert stream.status == 200
                await stream.read_until(b'"b"}\n\n')
                stream.close()
            refused = await RawStream.open(f"{api.url}/v1/{kind}s/{others}/stream?ticket={ticket}")
            assert refused.status == 401
            refused = await RawStream.open(f"{api.url}/v1/{kind}s/{mine}/stream?ticket={ticket[:-1]}_")
            assert refused.status == 401


async def test_stream_without_a_log_is_told_from_postgres(api: LiveApi, player: Player, redis: Redis) -> None:
    """The stream is gone: a `started` without an id line, `done` under its stored id, a clean end; at the end, 204."""
    await player.end()
    await redis.flushall()
    for query in ("", "?after=1-2", f"?after={player.id}:1-1"):
        stream = await open_run(api, player, query)
        frames = await stream.read_to_end()
        assert [(frame.id, frame.text) for frame in frames] == [(None, "started"), ("1-4", "done")]
        assert stream.ended_cleanly
    assert (await open_run(api, player, "?after=1-4")).status == 204


async def test_stream_frees_everything_when_its_client_leaves(api: LiveApi, player: Player) -> None:
    """Of clients that went away remain no subscription, no task, no open stream; the run goes on undisturbed."""
    first = await open_run(api, player)
    await first.read_until(b'"b"}\n\n')  # The hub has connected; a client that leaves earlier may leave it without.
    first.close()
    await eventually(lambda: hub_of(api).clients == 0, 1)
    tasks = len(asyncio.all_tasks())  # Those of the hub's connection among them, which it keeps.
    streams = [await open_run(api, player) for _ in range(20)]
    for stream in streams:
        await stream.read_until(b'"b"}\n\n')
    assert (hub_of(api).clients, hub_of(api).subscriptions, len(hub_of(api).streams)) == (20, 1, 20)
    for stream in streams[1:]:
        stream.close()
    await eventually(lambda: hub_of(api).clients == 1, 1)
    await player.tell("c")
    await streams[0].read_until(b'"c"}\n\n')
    streams[0].close()
    await eventually(lambda: (hub_of(api).clients, hub_of(api).subscriptions, len(hub_of(api).streams)) == (0, 0, 0), 1)
    await eventually(lambda: len(asyncio.all_tasks()) <= tasks, 1)
    assert await resources_of(api).redis.pubsub_channels() == []
    await player.end()
    assert texts(await (await open_run(api, player)).read_to_end()) == ["started", "a", "b", "c", "done"]


async def test_stream_of_several_viewers(api: LiveApi, player: Player) -> None:
    """All viewers see the same, those by run and those by conversation, whenever they came."""
    viewers = [await open_run(api, player), await open_conversation(api, player)]
    await player.tell("c")
    viewers.append(await open_run(api, player))
    await player.tell("d")
    await player.end()
    for viewer in viewers:
        assert texts(await viewer.read_to_end()) == ["started", "a", "b", "c", "d", "done"]


async def test_stream_ends_with_its_token(api: LiveApi, player: Player) -> None:
    """When the token expires, the connection breaks: no clean end that a client would take for success."""
    headers = bearer(api, player, lifetime_s=1.2)
    stream = await RawStream.open(f"{api.url}/v1/runs/{player.id}/stream", headers)
    assert texts(await stream.read_to_end(3)) == ["started", "a", "b"]
    assert not stream.ended_cleanly
    await eventually(lambda: hub_of(api).clients == 0, 1)


async def test_stream_breaks_on_shutdown(api: LiveApi, player: Player, caplog: pytest.LogCaptureFixture) -> None:
    """A server that stops breaks its streams at once, waits for nothing, and logs no error for it."""
    clock = asyncio.get_running_loop().time
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = Server(api.app)
        serving = asyncio.create_task(server._serve([listener]))
        stream = await RawStream.open(
            f"http://127.0.0.1:{listener.getsockname()[1]}/v1/runs/{player.id}/stream", bearer(api, player)
        )
        await stream.read_until(b'"b"}\n\n')
        begun = clock()
        server.should_exit = True
        await stream.read_to_end(2)
        assert not stream.ended_cleanly
        await serving
    assert clock() - begun < 1.5
    assert [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")] == []


class StuckReader:
    """A client that opens a stream and never reads."""

    def __init__(self, api: LiveApi, player: Player) -> None:
        port = int(api.url.rsplit(":", 1)[1])
        self._socket = socket.socket()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self._socket.connect(("127.0.0.1", port))
        head = [
            f"GET /v1/runs/{player.id}/stream HTTP/1.1",
            "host: api",
            f"authorization: Bearer {token(api, player)}",
        ]
        self._socket.sendall("\r\n".join([*head, "", ""]).encode())

    def close(self) -> None:
        self._socket.close()


async def test_stream_reader_that_never_reads_is_cut(
    api: LiveApi, player: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not buffered for and is cut off, while the others get everything."""
    monkeypatch.setattr(hub_module, "STALLED_S", 0.5)
    monkeypatch.setattr(hub_module, "_POLL_S", 0.2)
    good = await open_run(api, player)
    stuck = StuckReader(api, player)
    await eventually(lambda: hub_of(api).clients == 2)
    sent = 0

    async def flood() -> bool:
        nonlocal sent
        await player.tell("x" * 50_000)
        await good.read_until(b"id: 1-%d\n" % player.n)
        sent += 1
        return hub_of(api).clients == 1

    await eventually(flood, 20)
    await player.end()
    assert texts(await good.read_to_end()) == ["started", "a", "b", *["x" * 50_000] * sent, "done"]
    stuck.close()


async def test_stream_slow_reader_goes_back_to_the_log(api: LiveApi, player: Player) -> None:
    """A reader that pauses misses nothing: what did not fit its queue is read again from the stream."""
    slow = await open_run(api, player)
    await slow.read_until(b'"b"}\n\n')
    words = [f"{n}" + "x" * 20_000 for n in range(400)]
    for start in range(0, 400, 10):
        await player.tell(*words[start : start + 10])
    await player.end()
    assert texts(await slow.read_to_end(20)) == ["started", "a", "b", *words, "done"]
