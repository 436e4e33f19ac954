"""A file system of a few megabytes, which a test fills: writing to it fails as on a full disk."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PAGE = 4096
_AS_ROOT = [] if os.geteuid() == 0 else ["sudo", "-n"]


class SmallDisk:
    """A mounted file system.

    Args:
        path: the folder at which it is mounted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / ".filler"

    def fill(self, leave: int = 0) -> None:
        """Write a file until the disk is full, then free `leave` bytes, in whole pages."""
        self.make_room()
        with self._filler.open("wb", buffering=0) as file:
            for size in (256 * _PAGE, _PAGE):
                while _written(file.fileno(), size):
                    pass
            file.truncate(max(0, file.tell() - leave))

    def make_room(self) -> None:
        """Remove what `fill` has written."""
        self._filler.unlink(missing_ok=True)

    def names(self) -> list[str]:
        """List all files on it, without the filler."""
        return sorted(
            str(path.relative_to(self.path))
            for path in self.path.rglob("*")
            if path.is_file() and path != self._filler
        )


def _written(file: int, size: int) -> bool:
    try:
        return os.write(file, bytes(size)) == size
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        return False


@contextmanager
def small_disk(at: Path, megabytes: int) -> Iterator[SmallDisk]:
    """Mount a file system in memory at a folder, which takes root or sudo without a password."""
    at.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=777", "tmpfs", str(at)]
    subprocess.run([*_AS_ROOT, *mount], check=True)
    try:
        yield SmallDisk(at)
    finally:
        subprocess.run([*_AS_ROOT, "umount", "--lazy", str(at)], check=True)


def can_mount() -> bool:
    """Tell whether this user may mount a file system here."""
    test = [*_AS_ROOT, "unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    try:
        return subprocess.run(test, capture_output=True).returncode == 0
    except FileNotFoundError:
        return False
