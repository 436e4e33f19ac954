"""What is kept on disk between trainings: checkpoints and class pictures, a folder for each."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..files.locks import try_lock
from ..files.temporary import UNSURE_AFTER, this_computer
from .about import About, read_about
from .checkpoint import CheckpointFolder

_LOCK = ".in_use"
_TRIES, _PAUSE = 40, 0.05
RUNNING = "running"
STATES = ("nothing to resume", "saved", "unfinished", "finished, not saved")
"""States of a folder that is not in use, in the order in which they are removed to make room.

Class pictures are all `saved`: they can be drawn again.
"""


@dataclass(frozen=True)
class Kept:
    """A folder with a training's state, or with class pictures.

    Args:
        path: the folder.
        about: what a training's folder says about it; None for class pictures.
        state: RUNNING or one of STATES.
        bytes: size of all its files.
        used: time of its last use, in seconds since 1970.
    """

    path: Path
    about: About | None
    state: str
    bytes: int
    used: float

    @property
    def in_use(self) -> bool:
        return self.state == RUNNING


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Mark a folder as in use by this process, so that no process removes it to make room.

    The mark is a lock, which ends with the process. Where it cannot be set, as on a full disk, the
    work goes on without.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / _LOCK, "w", encoding="ascii")  # noqa: SIM115 (closed below)
    except OSError:
        yield
        return
    try:
        with suppress(OSError):
            _lock(file)
            file.write(this_computer())
            file.flush()
        yield
    finally:
        with suppress(OSError):  # a full disk
            file.close()
        _remove_mark(folder)


def _lock(file: IO[str]) -> None:
    """Lock the mark; another process may just be looking whether it is locked."""
    for _ in range(_TRIES):
        if try_lock(file, shared=True) is not False:
            return
        time.sleep(_PAUSE)


def _remove_mark(folder: Path) -> None:
    """Remove the mark, and the folder if nothing else was written to it."""
    with suppress(OSError):
        if not _is_held(folder):
            (folder / _LOCK).unlink()
            folder.rmdir()


def is_in_use(folder: Path) -> bool:
    """Tell whether a process uses a folder.

    The lock of another computer, or of a file system without locks, is not sure to be seen: then
    a folder counts as in use for a day after its last change.
    """
    return _is_held(folder, sure=False)


def _is_held(folder: Path, sure: bool = True) -> bool:
    try:
        with open(folder / _LOCK, "r+", encoding="ascii") as file:
            free = try_lock(file)
            own = file.read() == this_computer()
    except FileNotFoundError:
        return False
    except (OSError, ValueError):
        return True  # it cannot be known
    if free is False:
        return True
    unsure = not sure and (free is None or not own)
    return unsure and time.time() - _measured(folder)[1] < UNSURE_AFTER


def look(root: Path) -> list[Kept]:
    """List the folders in `root`, the last used one first; links and files are no part of it."""
    try:
        with os.scandir(root) as entries:
            folders = [Path(e.path) for e in entries if e.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    return sorted(map(_described, folders), key=lambda kept: -kept.used)


def remove(kept: Kept) -> bool:
    """Delete a folder with all that is in it, unless it is in use; return whether it is gone."""
    if is_in_use(kept.path):
        return False
    shutil.rmtree(kept.path, ignore_errors=True)
    return not kept.path.exists()


def _described(folder: Path) -> Kept:
    size, used = _measured(folder)
    about = read_about(folder)
    state = RUNNING if is_in_use(folder) else _state(folder, about)
    return Kept(folder, about, state, size, used)


def _state(folder: Path, about: About | None) -> str:
    checkpoint = CheckpointFolder(folder)
    if any(folder.glob("[0-9]*.safetensors")):
        return "saved"
    if checkpoint.older_state_file.exists():
        return "unfinished"
    if about is None or not checkpoint.state_file.exists():
        return "nothing to resume"
    if "" in about.parts or {"content", "style"} <= {*about.parts}:
        return "saved"
    return "unfinished" if about.state == "unfinished" else "finished, not saved"


def _measured(folder: Path) -> tuple[int, float]:
    """Return the bytes in a folder and the time of its last change, links not followed."""
    size, changed = 0, 0.0
    for place, _, names in os.walk(folder):
        for path in (place, *(os.path.join(place, name) for name in names)):
            with suppress(OSError):  # it was removed meanwhile
                stat = os.lstat(path)
                changed = max(changed, stat.st_mtime)
                size += stat.st_size if path != place else 0
    return size, changed
