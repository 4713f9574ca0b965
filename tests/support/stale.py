"""Data folders that killed test processes have left behind."""

import fcntl
import os
import shutil
import tempfile
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from common.devserver.embedded import sockets_folder

_YOUNG_S = 600


def remove_stale_folders(prefix: str) -> None:
    """Removes our own data folders in the temporary folder whose servers are gone, and the folders of their sockets.

    One that is younger than ten minutes stays: its process may be about to lock it.
    """
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        # What vanishes meanwhile, is locked, or has no lock is not ours to remove.
        with suppress(OSError), ExitStack() as locks:
            if not folder.is_symlink() and _is_old_and_ours(folder / "lock"):
                for name in ("lock", "servers.lock"):
                    lock = locks.enter_context((folder / name).open("rb"))
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(sockets_folder(folder.resolve()), ignore_errors=True)
                shutil.rmtree(folder)


def _is_old_and_ours(lock: Path) -> bool:
    info = lock.lstat()
    return info.st_uid == os.geteuid() and time.time() - info.st_mtime > _YOUNG_S
