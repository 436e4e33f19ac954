"""Atomic file writing: a file appears complete or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ..errors import ZipLoRAError, problem
from .temporary import temporary_file

Part = bytes | memoryview
"""A piece of a file; a memoryview avoids a copy."""


def write_bytes(path: Path, *parts: Part, replace: bool = False) -> None:
    """Write a temporary file beside `path`, fsync it, then rename it to `path`.

    Args:
        path: the final name, in an existing folder.
        parts: the content, in order.
        replace: whether to replace an existing file, which is an error otherwise.

    Raises:
        FileExistsError: `path` exists and `replace` is false.
        OSError: no space, no permission, …; no temporary file is left behind.
    """
    write_stream(path, parts, replace=replace)


def write_stream(path: Path, parts: Iterable[Part], *, replace: bool = False) -> None:
    """Write as `write_bytes` does, with parts that are made one after the other.

    Raises:
        FileExistsError, OSError: as `write_bytes`; whatever `parts` raises. No temporary file is
            left behind.
    """
    with temporary_file(path.parent) as (temporary, file):
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())
        if os.name == "nt":  # where an open file cannot be renamed
            file.close()
        if replace:
            os.replace(temporary, path)
        else:
            _name_new(temporary, path)


def unwritable(path: Path, size: int, error: OSError) -> ZipLoRAError:
    """Build the error for a result that could not be written: why, and that nothing is lost.

    Args:
        path: the file or folder.
        size: number of bytes that were to be written.
        error: the reason.
    """
    return problem(
        str(path),
        found=f"{error.strerror or error} while writing {size:,} bytes",
        expected="a folder with space that can be written to",
        advice="Nothing was written. Free some space, or choose a shorter name, and queue again: "
        "the result is cached, and nothing is lost.",
    )


def _name_new(temporary: Path, path: Path) -> None:
    """Rename the finished file; fail where the name is taken.

    A hard link does both at once. File systems without hard links (exFAT, some network drives) get
    a check and a rename.
    """
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:
        if path.exists():
            raise FileExistsError(path) from None
        os.rename(temporary, path)
