"""A worker whose event loop or whose tool is stuck must not go on as if nothing had happened."""

import pytest

from tests.support.eventually import eventually
from tests.support.model_script import Call, Reply
from tests.support.system import running_system

QUICK = {"LEASE_S": "2", "HEARTBEAT_S": "0.5", "SWEEP_S": "0.2"}


@pytest.mark.slow
async def test_worker_whose_loop_is_stuck_ends_itself() -> None:
    """A tool that blocks the loop past the lease costs its worker its life, so that another may take the run."""
    async with running_system() as system:
        client = await system.client(await system.api())
        stuck = await system.worker(**QUICK)
        system.models.script(Reply(calls=(Call("freeze", {"what": "now"}),)))
        await client.start("go", provider="anthropic", model="claude-test")
        await eventually(lambda: stuck.child.returncode is not None, 20)
        assert stuck.child.returncode == 70
        assert "blocked past a lease" in stuck.output()


@pytest.mark.slow
async def test_worker_leaves_without_the_thread_of_a_tool() -> None:
    """SIGTERM while a tool sits in a thread: after the drain the run is handed back, and the process ends at once."""
    async with running_system() as system:
        client = await system.client(await system.api())
        leaving = await system.worker(WORKER_DRAIN_S="0.5")
        system.models.script(Reply(calls=(Call("doze", {"what": "deeply"}),)))
        run = await client.start("go", provider="anthropic", model="claude-test")
        await eventually(system.effects_noted)
        assert await leaving.stop(grace_s=20) == 0
        assert (await client.run(run))["state"] == "queued"
