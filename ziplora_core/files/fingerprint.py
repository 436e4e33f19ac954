"""Fingerprints of files by their content, for caches that must notice every new version.

Size and time of a file are no fingerprint: programs that synchronise, unpack or restore files keep
both. The time of a file's last change of state (ctime) cannot be set by a program on Linux and
macOS, so there a hash is computed once for each; on Windows that field is the time of creation,
which stays when a file is written over, so a file is hashed whenever it is asked for (about a
second for 1 GB).
"""

from __future__ import annotations

import hashlib
import os
import time
from functools import lru_cache
from pathlib import Path

_UNSETTLED = 2 * 10**9
"""Nanoseconds in which a file may change again without another ctime: FAT counts in two seconds."""
_PIECE = 2**20


def fingerprint(path: Path) -> str | None:
    """Hash a file's content (BLAKE2b); None if there is no such file."""
    try:
        stat = path.stat()
        settled = abs(time.time_ns() - stat.st_ctime_ns) > _UNSETTLED
        if os.name == "nt" or not settled:
            return _content_hash(path)
        return _hash_of_state(path, state_of(path))
    except OSError:
        return None


def state_of(path: Path) -> tuple[int, ...]:
    """Return what the system says of a file, for what is only shown: reading a file takes longer.

    Raises:
        OSError: there is no such file.
    """
    stat = path.stat()
    return (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)


@lru_cache(maxsize=1024)
def _hash_of_state(path: Path, state: tuple[int, ...]) -> str:
    """Hash a file once for each of its states."""
    return _content_hash(path)


def _content_hash(path: Path) -> str:
    found = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            found.update(piece)
    return found.hexdigest()
