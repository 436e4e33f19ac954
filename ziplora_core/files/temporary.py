"""Temporary files: written beside their final place, and removed once their process is gone.

A process that is killed cannot remove its file. So each file is locked while it is written (on
Windows an open file cannot be removed), and its name has the computer's: a lock is only sure to
hold on its own computer. Older versions of the pack left names without either.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from .locks import try_lock

UNSURE_AFTER = 24 * 3600.0
"""Seconds without a change after which a file is removed whose lock says nothing."""
_OURS = re.compile(r"\.(?:ziplora-(?P<host>[0-9a-f]{8})-[0-9a-f]{12}|[0-9a-f]{16})\.tmp")


@dataclass(frozen=True)
class Removed:
    """What was removed: the number of files or folders, and their bytes."""

    count: int = 0
    bytes: int = 0


@contextmanager
def temporary_file(folder: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """Open a new file in a folder, locked; it is removed at the end unless it was renamed.

    Raises:
        OSError: the folder cannot be written to.
    """
    path, file = _create(folder)
    try:
        yield path, file
    finally:
        try:
            file.close()  # writes what is left, which a full disk refuses
        finally:
            path.unlink(missing_ok=True)


def _create(folder: Path) -> tuple[Path, IO[bytes]]:
    """Create and lock a file; once more if another process took it for abandoned in between."""
    while True:
        path = folder / f".ziplora-{this_computer()}-{uuid.uuid4().hex[:12]}.tmp"
        file = open(path, "xb")  # noqa: SIM115 (returned)
        if os.name == "nt":
            return path, file
        if try_lock(file) is not False and os.fstat(file.fileno()).st_nlink:
            return path, file
        file.close()


def this_computer() -> str:
    """Return eight hexadecimal digits that stand for this computer's name."""
    return hashlib.blake2b(platform.node().encode(), digest_size=4).hexdigest()


def remove_abandoned(root: Path) -> Removed:
    """Remove the temporary files of ended processes in a folder and all folders inside.

    A file of this computer is removed at once if no process holds it; any other when nothing was
    written to it for a day. What cannot be opened or removed is left.
    """
    found = [
        _remove_if_abandoned(Path(folder, name))
        for folder, _, names in os.walk(root)
        for name in names
        if _OURS.fullmatch(name) and not os.path.islink(os.path.join(folder, name))
    ]
    sizes = [size for size in found if size is not None]
    return Removed(len(sizes), sum(sizes))


def _remove_if_abandoned(path: Path) -> int | None:
    """Remove a temporary file that no process holds; return its size, None if it is left."""
    try:
        with open(path, "r+b") as file:
            free = try_lock(file)
            stat = os.fstat(file.fileno())
            if free is False or (_is_unsure(path.name, free) and not _is_old(stat.st_mtime)):
                return None
            if os.name != "nt":  # still locked: a process that has just made it sees it go
                path.unlink()
        if os.name == "nt":  # fails while its process has it open
            path.unlink()
    except OSError:
        return None
    return stat.st_size


def _is_unsure(name: str, free: bool | None) -> bool:
    """Tell whether a file may be in use although its lock looks free."""
    match = _OURS.fullmatch(name)
    return free is None or match is None or match["host"] != this_computer()


def _is_old(changed: float) -> bool:
    return time.time() - changed > UNSURE_AFTER
