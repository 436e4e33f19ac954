"""Kinds of picture files: which of them are read, and what is said of the others."""

from __future__ import annotations

import mimetypes
from pathlib import Path

from PIL import Image

from .picture_file import READ, UNREADABLE

_PACKAGES = {
    ".heic": "pillow-heif", ".heif": "pillow-heif", ".hif": "pillow-heif",
    ".jxl": "pillow-jxl-plugin",
}  # fmt: skip
_CAMERAS_AND_EDITORS = {
    ".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".psd", ".raf", ".raw", ".rw2", ".xcf",
}  # fmt: skip
_UNMISTAKABLE = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF", "HEIF")
"""The formats that begin with a mark of their own."""


def is_read(path: Path) -> bool:
    """Tell by its ending whether a file is a picture of a kind that Pillow reads here."""
    ending = path.suffix.lower()
    return ending in READ and Image.registered_extensions().get(ending) in Image.OPEN


def why_no_picture(path: Path) -> tuple[bool, str]:
    """Tell whether a file that is not read looks like a picture, and why it is not read."""
    ending = path.suffix.lower()
    if not path.exists():
        return ending in READ, "a link to nothing"
    if package := _PACKAGES.get(ending):
        return True, f"save it as .jpg, or install the Python package {package}"
    if ending in READ:
        return True, f"this Pillow cannot read {ending}: save it as .jpg or .png"
    if format := _format_by_content(path):
        return True, f"{format} by its content: give it that ending"
    kind = mimetypes.guess_type(path.name)[0] or ""
    if kind.startswith("image/") or ending in _CAMERAS_AND_EDITORS:
        return True, f"{ending} is not read: save it as .jpg or .png"
    return False, "not a picture"


def _format_by_content(path: Path) -> str | None:
    try:
        with Image.open(path, formats=[f for f in _UNMISTAKABLE if f in Image.OPEN]) as image:
            return image.format
    except UNREADABLE:
        return None
