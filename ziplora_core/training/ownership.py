"""One training at a time in a checkpoint folder, also of several ComfyUIs with one output folder.

Two trainings of the same inputs would write the same state in turn, and the one that ends first
would delete it under the other. So a training holds a lock beside its folder, which the system
drops when the process ends, however it ends.
"""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from ..errors import problem
from ..files.locks import try_lock

logger = logging.getLogger(__name__)

_NOBODY = "another process"


@contextmanager
def owned(folder: Path | None) -> Iterator[None]:
    """Hold a checkpoint folder for one training; None for a training without checkpoints.

    On a file system without locks, and where the lock cannot be written, nothing is held.

    Args:
        folder: the folder, whether it exists or not.

    Raises:
        ZipLoRAError: another training holds it.
    """
    held = _acquire(folder) if folder is not None else None
    try:
        yield
    finally:
        if held is not None:
            _release(*held)


def is_owned(folder: Path) -> bool:
    """Tell whether a training holds a checkpoint folder now, on any computer that shares locks."""
    try:
        with open(_lock_file(folder), "r+b") as file:
            return try_lock(file) is False
    except OSError:  # there is no lock
        return False


def _lock_file(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")


def _acquire(folder: Path) -> tuple[Path, IO[bytes]] | None:
    """Create and lock the file; once more if its last owner removed it in between."""
    path = _lock_file(folder)
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = open(path, "a+b")  # noqa: SIM115 (held until the training ends)
        except OSError as error:
            logger.warning("ZipLoRA: two trainings may write %s at once: %s", folder, error)
            return None
        ours = try_lock(file)
        if ours is False:
            file.close()
            raise problem(
                "training",
                found=f"the same training in {_owner(path)}, in the same output folder",
                expected="one training of the same inputs at a time",
                advice="Wait until it ends, or stop it there, and queue again; or choose another "
                "seed.",
            )
        if os.name != "nt" and not os.fstat(file.fileno()).st_nlink:
            file.close()
            continue
        _sign(file)
        _remove_abandoned(path)
        return path, file


def _remove_abandoned(own: Path) -> None:
    """Remove the locks of killed processes beside our own."""
    for path in own.parent.glob(".*.lock"):
        try:
            with open(path, "r+b") as file:
                if path != own and try_lock(file):
                    path.unlink()
        except OSError:  # it has just ended; or Windows, where an open file cannot be removed
            continue


def _sign(file: IO[bytes]) -> None:
    """Write into the lock who holds it, for the message to others."""
    since = time.strftime("%H:%M")
    text = f"the ComfyUI with process id {os.getpid()} on {platform.node()} since {since}"
    try:
        file.truncate(0)
        file.write(text.encode())
        file.flush()
    except OSError:
        return  # a full disk: the lock counts all the same


def _owner(path: Path) -> str:
    try:
        return path.read_text(errors="replace")[:200] or _NOBODY
    except OSError:  # it has just ended; or Windows, where a locked file cannot be read
        return _NOBODY


def _release(path: Path, file: IO[bytes]) -> None:
    """Remove the lock while it is held, so that nobody else holds a file without a name."""
    try:
        if os.name == "nt":  # an open file cannot be removed
            file.close()
        path.unlink(missing_ok=True)
    except OSError:
        logger.info("ZipLoRA: %s is left; it has no effect.", path)
    finally:
        with suppress(OSError):  # a full disk, on which the text did not fit
            file.close()
