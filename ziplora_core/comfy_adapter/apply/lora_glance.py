"""What the page shows of a LoRA file before it is used, by its name in the pickers' list."""

from __future__ import annotations

import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import folder_paths

from ...errors import ZipLoRAError
from ...files.fingerprint import state_of
from ...files.glance import Glance, glance_at, other_base
from ...files.reader import SAFETENSORS
from ..data.thumbnail import thumbnail
from ..folders import find_lora, listed_lora

_PREVIEWS = (".preview.png", ".png", ".preview.jpg", ".jpg", ".jpeg", ".webp", ".preview.webp")
"""Endings of a preview picture beside `name.safetensors`, after `name`; the first is shown."""
_BUDGET = 1.0
"""Seconds in which the files of a list are looked at, until more are asked for."""


def lora_glance(name: str) -> dict[str, Any]:
    """Describe a file for its card.

    Args:
        name: the file as the pickers list it.

    Returns:
        `size` in bytes; `preview`, a word that changes with the picture beside it, or None;
        `problem`, why the file cannot be read, or empty; for a safetensors file that can be,
        also `base`, `is_lora`, `ranks` and `words` (see `Glance`).
    """
    try:
        path = listed_lora(name)
        picture = _preview(path)
        said: dict[str, Any] = {
            "size": path.stat().st_size,
            "preview": _version(picture) if picture and thumbnail(picture) else None,
            "problem": "",
        }
        if path.suffix.lower() in SAFETENSORS:
            said |= vars(_glance(path, state_of(path)))
    except (ZipLoRAError, OSError) as error:
        return {"size": 0, "preview": None, "problem": str(error)}
    return said


def lora_preview(name: str) -> bytes | None:
    """Return the picture beside a file of the pickers' list as a small JPEG, if there is one."""
    try:
        picture = _preview(listed_lora(name))
    except (ZipLoRAError, OSError):
        return None
    return picture and thumbnail(picture)


def other_bases(start: int = 0) -> dict[str, Any]:
    """Look through the pickers' list for files of other bases than SDXL, as far as a second allows.

    Args:
        start: how many files of the list have been looked at before.

    Returns:
        `others`, the base of each such file from there on by its name; `next`, where to start the
        next time, or None after the last file. Each call looks at one file at least.
    """
    names = folder_paths.get_filename_list("loras")
    names = [name for name in names if name.lower().endswith(SAFETENSORS)]
    others, until = {}, time.monotonic() + _BUDGET
    for i, name in enumerate(names[start:], start + 1):
        if base := _base_in_list(name):
            others[name] = base
        if i < len(names) and time.monotonic() > until:
            return {"others": others, "next": i}
    return {"others": others, "next": None}


def _base_in_list(name: str) -> str:
    try:
        path = find_lora(name)
        return _other_base(path, state_of(path)) if path else ""
    except (ZipLoRAError, OSError):
        return ""  # its card says why, once it is picked


@lru_cache(maxsize=100_000)
def _other_base(path: Path, state: tuple[int, ...]) -> str:
    try:
        return other_base(path, path.name)
    except ZipLoRAError:
        return ""


@lru_cache(maxsize=256)
def _glance(path: Path, state: tuple[int, ...]) -> Glance:
    return glance_at(path, path.name)


def _version(path: Path) -> str:
    return "-".join(map(str, state_of(path)[1:]))


def _preview(path: Path) -> Path | None:
    """Find the picture beside a file; not one that a link has outside the file's folder."""
    folder = path.parent.resolve()
    for ending in _PREVIEWS:
        picture = path.with_name(path.stem + ending)
        if picture.is_file() and picture.resolve().parent == folder:
            return picture
    return None
