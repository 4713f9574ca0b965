"""Builds the web page: npm's packages by the lock file, then Vite."""

from pathlib import Path

from common.devserver.errors import DevServerError
from common.devserver.npm import Node, install_packages

_SOURCE = Path(__file__).resolve().parents[2] / "web"


def build_page(source: Path = _SOURCE) -> None:
    """Leaves the page where the API serves it from. Raises DevServerError, with the tool's last words."""
    _install(source).run("node_modules/vite/bin/vite.js", "build", "--logLevel", "warn", folder=source)


def check_page(source: Path = _SOURCE) -> None:
    """Raises DevServerError where the types of the page's sources are wrong."""
    _install(source).run("node_modules/typescript/bin/tsc", "--noEmit", folder=source)


def _install(source: Path) -> Node:
    if not (source / "package-lock.json").is_file():
        raise DevServerError("the page is built in a checkout of the project: there is no web/ here")
    return install_packages(source)
