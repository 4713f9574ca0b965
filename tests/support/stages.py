"""A run brought to a certain moment of its life, watched at every API."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tests.support.eventually import eventually
from tests.support.planned_model import plan
from tests.support.system import Client, System
from tests.support.watcher import Watcher

_numbers = itertools.count(1)


def named_plan(name: str = "", **options: Any) -> str:
    """A plan whose requests can be told from all others'."""
    return f"{plan(**options)}&name={name or next(_numbers)}"


def asked(system: System, model: str) -> int:
    """How often the provider was asked for this model."""
    return sum(request.body["model"] == model for request in system.models.requests)


class WatchedRun:
    """A run with one watcher at each of `clients`; `moment` names where in its life a test found it."""

    def __init__(self, clients: Sequence[Client], run: dict[str, Any], moment: str) -> None:
        self.id: str = run["id"]
        self.moment = moment
        self.run = run
        self.watchers = [Watcher([client], run) for client in clients]
        self._watching = [asyncio.create_task(watcher.watch(120)) for watcher in self.watchers]

    async def shows(self, type_: str) -> None:
        """Waits until the first watcher has seen such an event, or the end."""
        watcher = self.watchers[0]
        await eventually(lambda: watcher.end is not None or any(event["type"] == type_ for event in watcher.events), 60)

    async def seen_to_end(self) -> None:
        """Waits until all watchers have seen the end."""
        await asyncio.gather(*self._watching)


Stage = Callable[[System, Sequence[Client]], Awaitable[list[WatchedRun]]]


async def _start(clients: Sequence[Client], moment: str, model: str, **fields: Any) -> WatchedRun:
    run = await clients[0].start("go", provider="anthropic", model=model, **fields)
    return WatchedRun(clients, run, moment)


async def waiting(_: System, clients: Sequence[Client]) -> list[WatchedRun]:
    """One that waits for another, and that other."""
    model = named_plan(words=100, pause_ms=20)
    active = await _start(clients, "ahead of a waiting run", model)
    fields = {"provider": "anthropic", "model": model, "ifBusy": "enqueue"}
    run = await clients[0].post(active.run["conversationId"], "and then", **fields)
    return [active, WatchedRun(clients, run, "waiting")]


async def just_posted(_: System, clients: Sequence[Client]) -> list[WatchedRun]:
    """One that is queued, or claimed a moment ago."""
    return [await _start(clients, "just posted", named_plan(words=50, pause_ms=20))]


async def before_first_token(system: System, clients: Sequence[Client]) -> list[WatchedRun]:
    """One whose provider has been asked, and has not yet said a word."""
    model = named_plan(words=20, pause_ms=400)
    run = await _start(clients, "before the first token", model)
    await eventually(lambda: asked(system, model), 60)
    return [run]


async def amid_tokens(_: System, clients: Sequence[Client]) -> list[WatchedRun]:
    """One whose tokens are coming."""
    run = await _start(clients, "amid tokens", named_plan(words=600, pause_ms=20))
    await run.shows("token")
    return [run]


def in_tool(name: str) -> Stage:
    """Brings a run into a call of this tool, the first of many."""

    async def stage(_: System, clients: Sequence[Client]) -> list[WatchedRun]:
        run = await _start(clients, f"in the tool {name}", named_plan(steps=15, tools=name, words=3))
        await run.shows("tool_call")
        return [run]

    return stage


async def near_end(_: System, clients: Sequence[Client]) -> list[WatchedRun]:
    """One with a few words left to say, or none."""
    run = await _start(clients, "near the end", named_plan(words=5, pause_ms=5))
    await run.shows("token")
    return [run]


STAGES: tuple[Stage, ...] = (
    waiting,
    just_posted,
    before_first_token,
    amid_tokens,
    in_tool("look"),
    in_tool("store"),
    in_tool("charge"),
    near_end,
)
