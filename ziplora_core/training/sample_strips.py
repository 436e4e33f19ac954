"""The sample images of a training, kept with its checkpoint and shown again when it goes on.

They are there to be looked at, and no training needs them: what cannot be read is left out. The
training's record has few of them a second time (see records.py), as each of the two is deleted
without the other: some megabytes, beside the gigabyte of a checkpoint of SDXL.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..files.atomic import write_bytes

_FOLDER, _CAPTIONS, _JPEG = "samples", "captions.json", ".jpg"
_DIGITS = 12
"""Digits of the longest training."""
_MOST_BYTES = 16 * 2**20
"""Largest file that is read; four images of a strip take a few hundred kilobytes."""


@dataclass(frozen=True)
class Strip:
    """The sample images of one step.

    Args:
        jpeg: all of them side by side, as one JPEG.
        captions: what each of them is, from left to right; empty where it is not known.
    """

    jpeg: bytes
    captions: tuple[str, ...] = ()


def keep_strips(checkpoint: Path, strips: Mapping[int, Strip]) -> None:
    """Keep these strips in a checkpoint's folder, and no others.

    Args:
        checkpoint: the folder, which exists.
        strips: the strips by their step.

    Raises:
        OSError: the disk is full or not writable.
    """
    folder = checkpoint / _FOLDER
    folder.mkdir(exist_ok=True)
    kept = _files(folder)
    captions = {step: strip.captions for step, strip in sorted(strips.items())}
    write_bytes(folder / _CAPTIONS, json.dumps(captions).encode(), replace=True)
    for step, strip in strips.items():
        path = folder / f"{step}{_JPEG}"
        if step not in kept or path.read_bytes() != strip.jpeg:
            write_bytes(path, strip.jpeg, replace=True)
    for step, path in kept.items():
        if step not in strips:
            path.unlink(missing_ok=True)


def read_strips(checkpoint: Path, last: int) -> dict[int, Strip]:
    """Read the strips that are kept in a checkpoint's folder.

    Args:
        checkpoint: the folder, whether it exists or not.
        last: the step up to which they are of use: a training that goes on draws the later ones.
    """
    folder = checkpoint / _FOLDER
    captions = _captions(folder)
    strips = {}
    for step, path in sorted(_files(folder).items()):
        with suppress(OSError):
            if step <= last and path.stat().st_size <= _MOST_BYTES:
                strips[step] = Strip(path.read_bytes(), captions.get(str(step), ()))
    return strips


def _files(folder: Path) -> dict[int, Path]:
    """Return the strips' files by their step."""
    paths = [path for path in folder.glob(f"*{_JPEG}") if path.is_file()]
    names = [(path.stem, path) for path in paths if len(path.stem) <= _DIGITS]
    return {int(stem): path for stem, path in names if stem.isascii() and stem.isdigit()}


def _captions(folder: Path) -> dict[str, tuple[str, ...]]:
    try:
        path = folder / _CAPTIONS
        said = json.loads(path.read_bytes()) if path.stat().st_size <= _MOST_BYTES else {}
    except (OSError, ValueError, RecursionError):
        return {}
    if not isinstance(said, dict):
        return {}
    whole = {step: texts for step, texts in said.items() if isinstance(texts, list)}
    return {step: tuple(map(str, texts)) for step, texts in whole.items()}
