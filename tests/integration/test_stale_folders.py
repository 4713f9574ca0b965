"""What a killed test process has left is removed by a later one, and nothing else."""

import fcntl
import os
import tempfile
import time
from pathlib import Path

import pytest

from common.devserver.embedded import sockets_folder
from tests.support.stale import remove_stale_folders


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A temporary folder of the test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_stale_folder_is_removed_with_its_sockets(tmp_path: Path) -> None:
    """Old, ours and locked by nobody: gone, whatever it holds."""
    folder = _folder(tmp_path, age_s=3600)
    (folder / "pg").mkdir()
    sockets_folder(folder).mkdir()
    (sockets_folder(folder) / "valkey.sock").touch()
    remove_stale_folders("test-")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("held", ["lock", "servers.lock"])
def test_stale_folder_that_somebody_uses_stays(tmp_path: Path, held: str) -> None:
    """A live test process, or servers that are still ending, hold one of the locks."""
    folder = _folder(tmp_path, age_s=3600)
    with (folder / held).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        remove_stale_folders("test-")
    assert folder.exists()


def test_stale_folder_that_may_be_about_to_be_used_stays(tmp_path: Path) -> None:
    """One that is young, that has no lock yet, or that has another name is left alone."""
    young = _folder(tmp_path, age_s=10)
    (tmp_path / "test-empty").mkdir()
    other = _folder(tmp_path, age_s=3600, prefix="data-")
    remove_stale_folders("test-")
    assert sorted(tmp_path.iterdir()) == sorted([young, tmp_path / "test-empty", other])


def _folder(parent: Path, age_s: float, prefix: str = "test-") -> Path:
    folder = parent / f"{prefix}{age_s}"
    folder.mkdir()
    for name in ("lock", "servers.lock"):
        (folder / name).touch()
        os.utime(folder / name, (time.time() - age_s,) * 2)
    return folder
