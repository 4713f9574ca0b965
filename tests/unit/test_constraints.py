"""constraints.txt pins everything that an installation pulls in, on each supported Python."""

import re
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_LINES = (Path(__file__).resolve().parents[2] / "constraints.txt").read_text("utf-8").splitlines()
_PINNED = {canonicalize_name(line.partition("==")[0]) for line in _LINES}


def test_constraints_are_plain_pins() -> None:
    """One exact version per line: no address, no range, no package twice."""
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in _LINES)
    assert len(_PINNED) == len(_LINES)


@pytest.mark.parametrize("python", ["3.11.0", "3.11.3", "3.12.0", "3.13.0", "3.14.0"])
def test_constraints_pin_every_dependency(python: str) -> None:
    """Whatever is needed on Linux or macOS with this Python has its version fixed."""
    assert _needed(python) - _PINNED == set()


def _needed(python: str) -> set[str]:
    """The names of all packages that an installation with every extra pulls in."""
    environment = {"python_full_version": python, "python_version": python.rpartition(".")[0]}
    todo = [("throughline", ""), ("throughline", "dev"), ("throughline", "test")]
    seen = set(todo)
    while todo:
        name, extra = todo.pop()
        for requirement in _requirements(name):
            if requirement.marker is None or requirement.marker.evaluate({**environment, "extra": extra}):
                needed = canonicalize_name(requirement.name)
                steps = {(needed, wanted) for wanted in ("", *requirement.extras)} - seen
                seen |= steps
                todo += steps
    return {name for name, _ in seen} - {"throughline"}


@cache
def _requirements(name: str) -> list[Requirement]:
    """What a package asks for; nothing where this Python does without it."""
    try:
        return [Requirement(text) for text in distribution(name).requires or []]
    except PackageNotFoundError:
        return []
