"""A worker whose event loop is stuck, or that slept past its lease, must not go on as if nothing had happened."""

import signal

from tests.support.eventually import eventually
from tests.support.model_script import Call, Reply
from tests.support.system import fold, ids_increase, running_system

QUICK = {"LEASE_S": "2", "HEARTBEAT_S": "0.5", "SWEEP_S": "0.2"}


async def test_worker_that_wakes_after_its_lease_writes_nothing() -> None:
    """A zombie's events never reach a client: the other worker's answer is the only one, in log and database."""
    async with running_system() as system:
        client = await system.client(await system.api())
        zombie = await system.worker(**QUICK)
        system.models.script(Reply(text="zombie " * 100, pause_s=0.05))
        run = await client.start("go", provider="anthropic", model="claude-test")
        stream = await client.stream(run)
        await stream.read_until(b"zombie")
        zombie.child.send(signal.SIGSTOP)
        system.models.script(Reply(text="alive " * 60, pause_s=0.05))
        await system.worker(**QUICK)
        await stream.read_until(b"alive", 20)
        zombie.child.send(signal.SIGCONT)
        frames = await stream.read_to_end(30)
        assert ids_increase(frames)
        second = next(at for at, frame in enumerate(frames) if frame.event.get("attempt") == 2)
        assert all("zombie" not in str(frame.event) for frame in frames[second:])
        held, _ = fold([frame.event for frame in frames])
        (answer,) = [message for message in await client.messages(run) if message["role"] == "assistant"]
        assert [message["content"] for message in held] == [answer["content"]]
        assert answer["content"].split() == ["alive"] * 60


async def test_worker_whose_loop_is_stuck_ends_itself() -> None:
    """A tool that blocks the loop past the lease costs its worker its life, so that another may take the run."""
    async with running_system() as system:
        client = await system.client(await system.api())
        stuck = await system.worker(**QUICK)
        system.models.script(Reply(calls=(Call("freeze", {}),)))
        await client.start("go", provider="anthropic", model="claude-test")
        await eventually(lambda: stuck.child.returncode is not None, 20)
        assert stuck.child.returncode == 70
        assert "blocked past a lease" in stuck.output()
