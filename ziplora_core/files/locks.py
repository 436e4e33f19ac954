"""Locks on open files, which the system drops with their process, however it ends."""

from __future__ import annotations

import sys
from typing import IO, Any

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


def try_lock(file: IO[Any]) -> bool | None:
    """Lock a file that is open for writing, until it is closed or the process ends.

    Returns:
        whether the lock is ours now; None on a file system without locks, as on some network
        drives.
    """
    try:
        if sys.platform == "win32":
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # of Linux and macOS, of Windows
        return False
    except OSError:
        return None
    return True
