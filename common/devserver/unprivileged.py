"""Postgres refuses to run as root: what root does to run it as a user without rights or account."""

import os
import shutil
import stat
import tempfile
from pathlib import Path

_NOBODY = 65534
_SHARED = Path("/var/lib/throughline")
"""What must lie outside of private folders (a clone under /root, say). Only root writes here."""


def postgres_uid() -> int | None:
    """The uid that Postgres drops to; None when this process is not root and Postgres runs as it is."""
    return _NOBODY if os.geteuid() == 0 else None


def own(folder: Path, uid: int | None) -> None:
    """Makes `folder` (private) and gives it to `uid`."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if uid is not None and folder.stat().st_uid != uid:
        os.chown(folder, uid, uid)


def reachable_programs(folder: Path, uid: int | None) -> Path:
    """`folder` (a `bin`) itself, or a copy of its installation where `uid` may not enter the way to it."""
    if uid is None or _may_enter(folder):
        return folder
    # <package>/pginstall/bin finds its libraries in <package>.libs: the copy keeps this layout.
    package = folder.parent.parent
    home = _SHARED / f"{package.name}-{int((folder / 'postgres').stat().st_mtime)}"
    copy = home / folder.relative_to(package.parent)
    if not copy.exists():
        _SHARED.mkdir(mode=0o755, parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=_SHARED))
        for source in (package, package.with_name(f"{package.name}.libs")):
            if source.exists():
                shutil.copytree(source, draft / source.name, symlinks=True)
        draft.chmod(0o755)
        _publish(draft, home)
    return copy


def reachable_data(folder: Path, uid: int | None) -> Path:
    """`folder` itself, or the place that it links to where `uid` may not enter the way to it."""
    if uid is None or folder.is_symlink() or _may_enter(folder.parent):
        return folder.resolve()
    _SHARED.mkdir(mode=0o755, parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(dir=_SHARED, prefix="data-"))
    if folder.exists():
        place.rmdir()
        shutil.move(folder, place)
    folder.symlink_to(place)
    return place


def _may_enter(folder: Path) -> bool:
    resolved = folder.resolve()
    return all(step.stat().st_mode & stat.S_IXOTH for step in (resolved, *resolved.parents))


def _publish(draft: Path, home: Path) -> None:
    try:
        draft.rename(home)
    except OSError:
        # Another process was first: its copy is as good.
        shutil.rmtree(draft)
