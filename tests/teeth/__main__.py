"""`make teeth`: breaks the guards of `breakages.py` one by one in a copy of the tree; a test must fail each time.

`python -m tests.teeth [NAME ...]`. First the tests must pass on a copy that is whole. A change whose place is not found
exactly once ends the script: the guard has moved, and the breakage must follow. Exits with 1 when one went unnoticed.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from tests.teeth.breakage import Breakage
from tests.teeth.breakages import BREAKAGES

_ROOT = Path(__file__).resolve().parents[2]
_LIMIT_S = 300
_LEFT_OUT = shutil.ignore_patterns(
    *(".git", ".venv", "__pycache__", ".throughline", ".hypothesis", "*.egg-info", ".*_cache", "node_modules")
)


class Outcome(NamedTuple):
    """What came of a run of tests: those that failed, in order; None when it did not come to its end."""

    failed: list[str] | None
    passed: int
    seconds: float


def main(names: Sequence[str]) -> int:
    """The exit code."""
    unknown = set(names) - {breakage.name for breakage in BREAKAGES}
    if unknown:
        print(f"no such breakage: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    chosen = [breakage for breakage in BREAKAGES if not names or breakage.name in names]
    with _copy(_ROOT) as original:  # The tree itself may be worked on meanwhile.
        for breakage in BREAKAGES:
            _break(breakage, original, dry=True)
        tests = sorted({test for breakage in chosen for test in breakage.tests})
        whole = _run(original, tests, _LIMIT_S * 4, first=False)
        print(
            f"Nothing broken: {whole.passed} tests pass, {len(whole.failed or ())} fail, {whole.seconds:.0f} s",
            flush=True,
        )
        if whole.failed != []:
            print(f"Failing: {whole.failed}", file=sys.stderr)
            return 1
        print("\n| guard | broken | caught first by | s |\n|---|---|---|---|")
        unnoticed = [breakage.name for breakage in chosen if not _is_caught(breakage, original)]
    print(f"\n{len(chosen) - len(unnoticed)} of {len(chosen)} caught{'; not ' * bool(unnoticed)}{', '.join(unnoticed)}")
    return bool(unnoticed)


def _is_caught(breakage: Breakage, original: Path) -> bool:
    with _copy(original) as tree:
        _break(breakage, tree)
        outcome = _run(tree, breakage.tests, _LIMIT_S)
    caught = outcome.failed[0] if outcome.failed else "**nobody**" if outcome.failed == [] else "**nobody: it hung**"
    print(f"| {breakage.guard} | {breakage.broken} | {caught} | {outcome.seconds:.0f} |", flush=True)
    return bool(outcome.failed)


@contextmanager
def _copy(original: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="throughline-teeth-") as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(original, tree, ignore=_LEFT_OUT)
        yield tree


def _break(breakage: Breakage, tree: Path, *, dry: bool = False) -> None:
    texts: dict[Path, str] = {}
    for path, old, new in breakage.changes:
        file = tree / path
        text = texts.get(file) or file.read_text()
        if text.count(old) != 1:
            raise SystemExit(f"{breakage.name}: {path} has this {text.count(old)} times, not once:\n{old}")
        texts[file] = text.replace(old, new)
    for file, text in texts.items() if not dry else ():
        file.write_text(text)


def _run(tree: Path, tests: Sequence[str], limit_s: float, *, first: bool = True) -> Outcome:
    """The tests in this order, all of them or up to the first failure."""
    report = tree.parent / "report.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", *["-x"] * first, *tests]
    env = {**os.environ, "PYTHONPATH": str(tree), "CHAOS": "full", "PYTHONDONTWRITEBYTECODE": "1"}
    began_at = time.monotonic()
    with (tree.parent / "output").open("w") as output:
        process = subprocess.Popen(
            command, cwd=tree, env=env, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            process.wait(limit_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    seconds = time.monotonic() - began_at
    if not report.exists():
        print((tree.parent / "output").read_text()[-2000:], file=sys.stderr)
        return Outcome(None, 0, seconds)
    cases = list(ElementTree.parse(report).iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    if process.returncode not in (0, 1):
        print((tree.parent / "output").read_text()[-2000:], file=sys.stderr)
        return Outcome(None, 0, seconds)
    return Outcome([_name(case) for case in failed], len(cases) - len(failed), seconds)


def _name(case: ElementTree.Element) -> str:
    return f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
