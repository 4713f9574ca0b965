"""An address behind which there is always an API: whenever its process has ended, the next one takes its place."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from tests.support.failpoints import Failpoint
from tests.support.processes import EndedProcess, RunningProcess, open_listener
from tests.support.system import Client, System

Life = Callable[[int], tuple[Failpoint, ...]]
"""The failpoints of the first, second, … process; the first is number 0."""


def _spared(_: int) -> tuple[Failpoint, ...]:
    return ()


class KeptApi:
    """The process that answers now, and how many there were before it."""

    def __init__(self, process: RunningProcess) -> None:
        self.process = process
        self.deaths = 0

    async def kill(self) -> None:
        """`kill -9`."""
        await self.process.stop(signal.SIGKILL)


@asynccontextmanager
async def kept_apis(
    system: System, on_death: Callable[[str], None], lives: Sequence[Life] = (_spared, _spared)
) -> AsyncIterator[tuple[list[KeptApi], list[Client]]]:
    """As many as there are `lives`, and one person at all of them. `on_death` is told of each end."""
    async with AsyncExitStack() as stack:
        keeping = (stack.enter_async_context(_kept_api(system, life, on_death)) for life in lives)
        apis = list(await asyncio.gather(*keeping))
        first = await system.client(apis[0].process)
        others = [await system.client(api.process, first.workspace_id) for api in apis[1:]]
        yield apis, [first, *others]


@asynccontextmanager
async def _kept_api(system: System, life: Life, on_death: Callable[[str], None]) -> AsyncIterator[KeptApi]:
    """A ready API; while none answers, connections wait for the next."""
    with open_listener() as listener:
        api = KeptApi(await system.api_on(listener, *life(0)))

        async def replace() -> None:
            while True:
                if await api.process.child.wait(3600) is not None:
                    api.deaths += 1
                    on_death(f"end number {api.deaths} of the API at {api.process.url}")
                    # Whoever was kept waiting may end the next one before it is seen to be ready.
                    with suppress(EndedProcess):
                        api.process = await system.api_on(listener, *life(api.deaths))

        replacing = asyncio.create_task(replace())
        try:
            yield api
        finally:
            replacing.cancel()
            await asyncio.wait({replacing})
            if not replacing.cancelled():
                replacing.result()
            await api.process.stop()
