"""One measurement: the load generator against a server, with the CPU of both."""

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import psutil

from bench.model import FakeModel
from bench.processes import cpu_s, machine_cpu_s
from bench.servers import Server
from bench.spec import LoadResult, Spec

_ROOT = Path(__file__).parents[1]


class Measured(NamedTuple):
    """`cpu_s` is by process, like the tokens of the window alone; without a window it is empty.

    Beside the server's processes it has `model`, `load`, and `others`: what else ran on this machine.
    """

    load: LoadResult
    cpu_s: dict[str, float]

    def tokens_per_cpu_s(self, *names: str) -> float:
        """Tokens delivered per CPU second of the named processes."""
        return self.load.tokens / sum(self.cpu_s[name] for name in names)


async def measure(server: Server, model: FakeModel, spec: Spec, cpus: list[int] | None = None) -> Measured:
    """Raises SystemExit with the load generator's words when it could not measure.

    `cpus` are those of the load generator; the other processes are not touched.
    """
    watched = None if spec.one_by_one else {**server.processes, "model": model.process}
    output, cpu = await run_load("bench.load", msgspec.json.encode(spec), server.check, watched, cpus)
    return Measured(msgspec.json.decode(output, type=LoadResult), cpu)


async def run_load(
    module: str,
    request: bytes,
    check: Callable[[], None],
    watched: dict[str, psutil.Process] | None = None,
    cpus: list[int] | None = None,
) -> tuple[bytes, dict[str, float]]:
    """What a load generator answers, and the CPU of it and of `watched` in the window that it tells.

    Without `watched` there is no window. Raises SystemExit, and what `check` raises.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        module,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=_ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    if cpus is not None:
        os.sched_setaffinity(process.pid, cpus)
    process.stdin.write(request)
    process.stdin.close()
    cpu: dict[str, float] = {}
    words = b""
    if watched is not None:
        words = await process.stderr.readline()
        if words.startswith(b"["):
            cpu = await _cpu_between({**watched, "load": psutil.Process(process.pid)}, *json.loads(words))
    check()
    output, more = await asyncio.gather(process.stdout.read(), process.stderr.read())
    if await process.wait() != 0:
        raise SystemExit(f"the load generator failed:\n{(words + more).decode(errors='replace')}")
    return output, cpu


async def _cpu_between(watched: dict[str, psutil.Process], first: float, last: float) -> dict[str, float]:
    """CPU seconds of each process, and of all others, between two moments of the monotonic clock."""
    await asyncio.sleep(first - time.monotonic())
    before = {name: cpu_s(process) for name, process in watched.items()}
    busy = machine_cpu_s()
    await asyncio.sleep(last - time.monotonic())
    used = {name: cpu_s(process) - before[name] for name, process in watched.items()}
    return {**used, "others": max(0.0, machine_cpu_s() - busy - sum(used.values()))}
