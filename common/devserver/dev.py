"""`throughline dev`: from nothing to a running system, and back at Ctrl-C."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from common.config import load_settings
from common.devserver.embedded import refuse_used_folder
from common.devserver.errors import DevServerError
from common.devserver.health import until_worker_speaks
from common.devserver.mint_token import DEVELOPER, DEVELOPMENT_WORKSPACE, mint_development_token
from common.devserver.procfile import read_procfile
from common.devserver.readiness import free_port, until_ready
from common.devserver.secret import signing_secret
from common.devserver.system import System
from common.devserver.welcome import welcome

_PARENT_CHECK_S = 0.2
_DRAIN_S = "5"
"""WORKER_DRAIN_S where it is not set: who presses Ctrl-C is waiting, and the runs go on at the next start."""
_GRACE_AFTER_DRAIN_S = 10


class DevOptions(NamedTuple):
    """What `dev` was asked for. Port 0: one that the system chooses. `follow_parent`: end with the parent."""

    port: int
    data: Path
    workers: int
    procfile: Path
    follow_parent: bool = False


async def dev(options: DevOptions, environment: Mapping[str, str]) -> None:
    """Runs until SIGINT or SIGTERM, then stops all in order; a second signal kills API and workers.

    Raises DevServerError or ConfigError before anything runs, or when something cannot run.
    """
    commands = read_procfile(options.procfile)
    env = _process_environment(options, environment)
    drain_s = load_settings(env).worker_drain_s
    _check_port(env, options.data)
    system = System(commands, env, options.data, options.workers, drain_s + _GRACE_AFTER_DRAIN_S, _write)
    serving = asyncio.create_task(system.serve(lambda: _greet(env, has_worker="worker" in commands)))
    interrupts = 0

    def interrupt() -> None:
        nonlocal interrupts
        interrupts += 1
        if interrupts == 1:
            limit = f"up to {drain_s:g} s for current steps (WORKER_DRAIN_S)"
            _write("throughline", f"stopping: waiting {limit}; Ctrl-C again to end now")
            serving.cancel()
        else:
            system.kill()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, interrupt)

    async def follow_parent() -> None:
        await _until_orphaned()
        if interrupts == 0:
            interrupt()

    following = asyncio.create_task(follow_parent()) if options.follow_parent else None
    try:
        await serving
    except asyncio.CancelledError:
        _write("throughline", "stopped")
    finally:
        if following is not None:
            following.cancel()


async def _until_orphaned() -> None:
    """Returns once the parent (`make run`, say) is gone, however it went."""
    parent = os.getppid()
    while True:
        await asyncio.sleep(_PARENT_CHECK_S)
        if os.getppid() != parent:
            return


def _process_environment(options: DevOptions, environment: Mapping[str, str]) -> dict[str, str]:
    """What every process of the system gets; embedded servers add their URLs once they run."""
    if bool(environment.get("DATABASE_URL")) != bool(environment.get("REDIS_URL")):
        raise DevServerError("set both DATABASE_URL and REDIS_URL, or neither to get embedded servers")
    data = options.data.resolve()
    programs = str(Path(sys.executable).parent)
    return {
        **environment,
        "PATH": os.pathsep.join([programs, environment.get("PATH", os.defpath)]),
        "PYTHONUNBUFFERED": "1",
        "THROUGHLINE_ENV": "development",
        "THROUGHLINE_DATA": str(data),
        "HOST": environment.get("HOST") or "127.0.0.1",
        "PORT": str(options.port or free_port()),
        "WORKER_DRAIN_S": environment.get("WORKER_DRAIN_S", "").strip() or _DRAIN_S,
        "JWT_SECRET": signing_secret({**environment, "THROUGHLINE_ENV": "development"}, data),
    }


def _check_port(env: Mapping[str, str], data: Path) -> None:
    """Raises DevServerError when somebody listens there already, such as the `dev` that uses the same folder."""
    host, port = env["HOST"], int(env["PORT"])
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if not env.get("DATABASE_URL"):
                refuse_used_folder(data)
            raise DevServerError(
                f"cannot listen on {host}:{port}: {error.strerror}; choose another port with --port"
            ) from None


async def _greet(env: Mapping[str, str], *, has_worker: bool) -> None:
    """Prints the address, a token and commands to try, once the API is ready and a worker is there."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(env["HOST"], env["HOST"])  # noqa: S104
    settings = load_settings(env)
    started = asyncio.get_running_loop().time()
    await until_ready(host, settings.port)
    if has_worker:
        # An earlier start's worker, which the catalogue still knows, does not count.
        await until_worker_speaks(settings, started)
    token = mint_development_token(settings)
    address = f"http://{f'[{host}]' if ':' in host else host}:{env['PORT']}"
    text = welcome(address=address, token=token, user=DEVELOPER, workspace=str(DEVELOPMENT_WORKSPACE))
    print(text, flush=True)


def _write(name: str, line: str) -> None:
    print(f"{name:<11} | {line}", flush=True)
