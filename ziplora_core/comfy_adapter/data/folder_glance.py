"""What the page shows of a folder of training pictures before it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...errors import ZipLoRAError
from ..folders import listed_subfolder
from .caption_files import find_captions, is_caption
from .picture_folder import files_of
from .picture_kinds import is_read
from .thumbnail import thumbnail

SHOWN = 4
"""Pictures of a folder that are shown."""
MOST_TEXT = 16 << 20
"""Bytes of captions that are read for that."""
_LONGEST = 500


def folder_glance(name: str) -> dict[str, Any]:
    """Describe a folder.

    Args:
        name: the folder as Load Training Images lists it.

    Returns:
        `count` of its pictures; `pictures`, the first of them, each with `name`, `caption` and
        `version`, a number that changes with it, or None where it cannot be shown; `problem`, why
        the folder or its captions cannot be used, or empty.
    """
    try:
        folder = listed_subfolder(name)
        files = [path for path in files_of(folder) if path.is_file()]
        pictures = [path for path in files if is_read(path)]
        captions, problem = _captions(folder, pictures, files)
        shown = [
            {"name": path.name, "caption": caption[:_LONGEST], "version": _version(path)}
            for path, caption in zip(pictures[:SHOWN], captions, strict=False)
        ]
    except (ZipLoRAError, OSError) as error:
        return {"count": 0, "pictures": [], "problem": str(error)}
    return {"count": len(pictures), "pictures": shown, "problem": problem}


def folder_picture(name: str, picture: str) -> bytes | None:
    """Return a picture of a listed folder as a small JPEG, by the name that it has there."""
    try:
        paths = [path for path in files_of(listed_subfolder(name)) if path.name == picture]
    except (ZipLoRAError, OSError):
        return None
    return thumbnail(paths[0]) if paths and is_read(paths[0]) else None


def _captions(folder: Path, pictures: list[Path], files: list[Path]) -> tuple[list[str], str]:
    """Return each picture's caption, empty where there is none, and what is wrong with them."""
    none = [""] * len(pictures)
    texts = [path for path in files if is_caption(path)]
    if sum(path.stat().st_size for path in texts) > MOST_TEXT:
        return none, ""
    try:
        return find_captions(folder, pictures, texts).captions or none, ""
    except ZipLoRAError as error:
        return none, str(error)


def _version(path: Path) -> str | None:
    return str(path.stat().st_mtime_ns) if thumbnail(path) else None
