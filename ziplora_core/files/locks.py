"""Locks on open files, which the system drops with their process, however it ends."""

from __future__ import annotations

import sys
from typing import IO, Any

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


def try_lock(file: IO[Any], shared: bool = False) -> bool | None:
    """Lock a file that is open for writing, until it is closed or the process ends.

    Args:
        file: the file.
        shared: whether others may hold a shared lock, too; on Windows all are exclusive.

    Returns:
        whether the lock is ours now; None on a file system without locks, as on some network
        drives.
    """
    try:
        if sys.platform == "win32":
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
            fcntl.flock(file, kind | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # of Linux and macOS, of Windows
        return False
    except OSError:
        return None
    return True
