"""Writing a file so that there is either all of it or nothing, and never over another one."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

Part = bytes | memoryview
"""A piece of a file: a memoryview spares the copy."""


def write_bytes(path: Path, *parts: Part, replace: bool = False) -> None:
    """Write to a temporary file beside `path`, fsync it, then give it its name.

    Args:
        path: the final name; its folder exists.
        parts: the content, in order.
        replace: put it in the place of an earlier file; otherwise an existing file is an error.

    Raises:
        FileExistsError: `path` exists and `replace` is false.
        OSError: no space, no permission…; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.replace(temporary, path)
        else:
            _name_new(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _name_new(temporary: Path, path: Path) -> None:
    """Name the finished file, failing where the name is taken. A hard link does both at once;
    file systems without links (exFAT, some network drives) get a check and a rename."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:
        if path.exists():
            raise FileExistsError(path) from None
        os.rename(temporary, path)
