"""Processes under measurement: their CPU time, and the CPUs that they may use."""

import os
from pathlib import Path

import psutil


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


def _tree(process: psutil.Process) -> list[psutil.Process]:
    return [process, *process.children(recursive=True)]
