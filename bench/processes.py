"""Processes under measurement: their CPU time, their memory, and the CPUs that they may use."""

import asyncio
import os
from pathlib import Path

import psutil

_SETTLED_S = 1.5
_SETTLE_S = 20.0
_LOOK_S = 0.25
_SAME_BYTES = 64 * 1024


def cpu_s(process: psutil.Process) -> float:
    """CPU seconds that it and all that it started have used so far."""
    return sum(sum(member.cpu_times()[:4]) for member in _tree(process))


def machine_cpu_s() -> float:
    """CPU seconds that everything on this machine has used so far."""
    times = psutil.cpu_times()
    return float(times.user + times.nice + times.system)


def usable_cpus() -> list[int]:
    """Those that this process may use; a single one where processes cannot be bound to any."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]


def pin(process: psutil.Process, cpus: list[int]) -> None:
    """Lets every thread of it and of all that it started run on these CPUs alone; what is to come inherits it."""
    for member in _tree(process):
        for thread in Path(f"/proc/{member.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), cpus)


async def settled_rss(process: psutil.Process) -> int:
    """Its RSS in bytes, once that has stayed the same for a while, or soon enough."""
    last, same_s, waited_s = 0, 0.0, 0.0
    while same_s < _SETTLED_S and waited_s < _SETTLE_S:
        await asyncio.sleep(_LOOK_S)
        rss = process.memory_info().rss
        same_s = same_s + _LOOK_S if abs(rss - last) <= _SAME_BYTES else 0.0
        last = rss if same_s == 0.0 else last
        waited_s += _LOOK_S
    return int(process.memory_info().rss)


def _tree(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]
