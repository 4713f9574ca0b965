"""The whole system as processes: API and workers on servers of their own, and a client who only knows HTTP."""

import socket
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx

from common.config import load_settings
from common.ids import new_id
from tests.support.api_client import make_token
from tests.support.eventually import eventually
from tests.support.failpoints import Failpoint, Failpoints
from tests.support.fake_model_server import FakeModelServer
from tests.support.forker import AVAILABLE, the_forker
from tests.support.probe_tools import EFFECTS_VARIABLE
from tests.support.processes import RunningProcess, api_process, environment, worker_process
from tests.support.raw_stream import Frame, RawStream
from tests.support.servers import Servers, running_servers

SECRET = "a secret of the whole system, long enough for HS256"
TERMINAL = ("done", "error", "cancelled")


class Client:
    """Somebody in one workspace, talking to one API process."""

    def __init__(self, url: str, workspace_id: UUID, http: httpx.AsyncClient) -> None:
        self.url = url
        self.workspace_id = workspace_id
        self.http = http
        self.headers = dict(http.headers)

    async def conversation(self, **fields: Any) -> str:
        """The id of a new conversation."""
        answer = await self.http.post("/v1/conversations", json=fields)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def document(self, name: str, content: str = "") -> str:
        """The id of a new document."""
        answer = await self.http.post("/v1/documents", json={"name": name, "content": content})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    async def post(self, conversation_id: str, content: str = "hello", **fields: Any) -> dict[str, Any]:
        """The run that a message started."""
        path = f"/v1/conversations/{conversation_id}/messages"
        answer = await self.http.post(path, json={"content": content, **fields})
        assert answer.status_code == 202, answer.text
        return dict(answer.json()["run"])

    async def start(self, content: str = "hello", **fields: Any) -> dict[str, Any]:
        """The run of a message in a conversation of its own."""
        return await self.post(await self.conversation(), content, **fields)

    async def stream(self, run: dict[str, Any], after: str | None = None) -> RawStream:
        """The run's events from `after` on, as they come."""
        headers = {"authorization": self.headers["authorization"]}
        if after is not None:
            headers["last-event-id"] = after
        return await RawStream.open(f"{self.url}/v1/runs/{run['id']}/stream", headers)

    async def events(self, run: dict[str, Any], timeout_s: float = 30) -> list[dict[str, Any]]:
        """All events of the run, once it has ended."""
        stream = await self.stream(run)
        return [frame.event for frame in await stream.read_to_end(timeout_s)]

    async def run(self, run: dict[str, Any]) -> dict[str, Any]:
        """The run as it is now."""
        return dict((await self.http.get(f"/v1/runs/{run['id']}")).json())

    async def messages(self, run: dict[str, Any]) -> list[dict[str, Any]]:
        """The messages of the run's conversation."""
        return list((await self.http.get(f"/v1/conversations/{run['conversationId']}")).json()["messages"])

    async def state_is(self, run: dict[str, Any], state: str, timeout_s: float = 20) -> None:
        """Waits for the run's state."""

        async def reached() -> bool:
            return bool((await self.run(run))["state"] == state)

        await eventually(reached, timeout_s)


class System:
    """Servers, a fake model server, and whatever processes a test starts.

    `forked` spares each process the time of its imports; see `tests.support.forker`.
    """

    def __init__(
        self,
        servers: Servers,
        models: FakeModelServer,
        stack: AsyncExitStack,
        folder: Path,
        url: str,
        *,
        redis_url: str | None = None,
        forked: bool = False,
    ) -> None:
        self.servers = servers
        self.models = models
        self.effects = folder / "effects"
        self.failpoints = Failpoints(folder / "failpoints")
        self._stack = stack
        self._forked = forked
        self._environment = {
            "THROUGHLINE_ENV": "development",
            "THROUGHLINE_DATA": str(folder),
            "DATABASE_URL": url,
            "MIGRATION_DATABASE_URL": url,
            "REDIS_URL": redis_url or servers.redis_url,
            "JWT_SECRET": SECRET,
            "DEFAULT_PROVIDER": "echo",
            "DEFAULT_MODEL": "echo",
            "TOOLS_MODULE": "tests.support.probe_tools",
            "ANTHROPIC_API_KEY": "sk-canary-anthropic",
            "ANTHROPIC_BASE_URL": models.url,
            "OPENAI_API_KEY": "sk-canary-openai",
            "OPENAI_BASE_URL": f"{models.url}/v1",
            "OPENROUTER_API_KEY": "sk-canary-openrouter",
            "OPENROUTER_BASE_URL": f"{models.url}/v1",
        }

    def environment(self, **more: str) -> dict[str, str]:
        """The variables of a process of this system."""
        settings = load_settings({**self._environment, **more})
        return environment(settings, **{EFFECTS_VARIABLE: str(self.effects), **more})

    async def api(self, *failpoints: Failpoint, **more: str) -> RunningProcess:
        """One more API process."""
        process = api_process(self._armed(failpoints, more), forked=self._forked)
        return await self._stack.enter_async_context(process)

    async def api_on(self, listener: socket.socket, *failpoints: Failpoint, **more: str) -> RunningProcess:
        """One more API process, on an address that outlives it."""
        process = api_process(self._armed(failpoints, more), listener, forked=self._forked)
        return await self._stack.enter_async_context(process)

    async def worker(self, *failpoints: Failpoint, **more: str) -> RunningProcess:
        """One more worker process."""
        process = worker_process(self._armed(failpoints, more), forked=self._forked)
        return await self._stack.enter_async_context(process)

    async def rows(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        """What the database's owner sees, of all workspaces."""
        connection = await asyncpg.connect(self._environment["MIGRATION_DATABASE_URL"])
        try:
            return list(await connection.fetch(query, *arguments))
        finally:
            await connection.close()

    async def all_ended(self, timeout_s: float = 30) -> None:
        """Waits until no run is left that has not ended."""

        async def ended() -> bool:
            return not await self.rows("select from runs where finished_at is null limit 1")

        await eventually(ended, timeout_s, 0.1)

    async def expire_leases(self, owner: RunningProcess) -> None:
        """What this worker holds is anybody's from now on, however long its leases are."""
        await self.rows(
            """
            update runs set lease_until = clock_timestamp() - interval '1 second'
            where state = 'running' and lease_owner like $1
            """,
            f"%:{owner.pid}:%",
        )

    async def client(self, api: RunningProcess, workspace_id: UUID | None = None) -> Client:
        """A member of `workspace_id` (default: a workspace of their own) at this API."""
        workspace_id = workspace_id or new_id()
        token = make_token(SECRET, (workspace_id, "member"))
        http = httpx.AsyncClient(
            base_url=api.url, headers={"authorization": f"Bearer {token}"}, timeout=30, trust_env=False
        )
        return Client(api.url, workspace_id, await self._stack.enter_async_context(http))

    def _armed(self, failpoints: tuple[Failpoint, ...], more: dict[str, str]) -> dict[str, str]:
        env = self.environment(**more)
        return {**env, **self.failpoints.environment(failpoints)} if failpoints else env

    def effects_noted(self) -> list[str]:
        """What the probe tools did, in order."""
        return self.effects.read_text().splitlines() if self.effects.exists() else []


@asynccontextmanager
async def running_system(*, durable: bool = False, tcp: bool = False, forked: bool = False) -> AsyncIterator[System]:
    """A system without processes yet; everything it started is stopped at the end."""
    if forked and AVAILABLE:
        the_forker()  # It imports while the servers start.
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="throughline-system-")))
        servers = await stack.enter_async_context(running_servers(durable=durable, tcp=tcp))
        models = await stack.enter_async_context(FakeModelServer())
        url = await servers.create_database()
        async with AsyncExitStack() as processes:
            yield System(servers, models, processes, folder, url, forked=forked)


def fold(frames: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
    """What a native client holds after these events: the run's messages, and the end if there is one."""
    messages: list[dict[str, Any]] = []
    text = ""
    for event in frames:
        match event["type"]:
            case "started":
                messages, text = list(event["messages"]), ""
            case "token":
                text += event["content"]
            case "discarded":
                text = ""
            case "step":
                assert event["message"]["content"].startswith(text) or not text
                messages.append(event["message"])
                text = ""
            case "tool_result":
                messages.append({"role": "tool", "toolCallId": event["toolCallId"], "content": event["result"]})
    return messages, frames[-1] if frames and frames[-1]["type"] in TERMINAL else None


def ids_increase(frames: list[Frame]) -> bool:
    """Whether every id is greater than the one before it, as a pair."""
    ids = [tuple(map(int, frame.id.rpartition(":")[2].split("-"))) for frame in frames if frame.id]
    return ids == sorted(set(ids))
