"""A note beside each checkpoint that says which training it belongs to, for people and lists."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

from ..files.atomic import write_bytes
from .resume_key import VERSION

Ending = Literal["unfinished", "finished", "rolled back"]
"""How far a training is; one that was stopped on request is unfinished, as it can go on."""
_FILE = "about.json"


@dataclass(frozen=True)
class About:
    """What a checkpoint folder says about its training.

    Args:
        method: the training's name, e.g. `DreamBooth`.
        title: its prompt, or another name that its user knows.
        steps: number of steps of the whole training.
        step: number of steps done.
        state: see `Ending`.
        saved: files that contain the result of a step of it, as LoRA loaders list them.
        parts: the parts of the result at `step` that are in a file; "" is the whole.
        version: version of the training procedure.
    """

    method: str = ""
    title: str = ""
    steps: int = 0
    step: int = 0
    state: Ending = "unfinished"
    saved: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    version: int = VERSION


def read_about(folder: Path) -> About | None:
    """Read a folder's note; None where there is none, or none that can be read."""
    try:
        said = json.loads((folder / _FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return _about(said) if isinstance(said, dict) else None


def write_about(folder: Path, about: About) -> None:
    """Write a folder's note.

    Raises:
        OSError: the disk is full or not writable; an earlier note is untouched.
    """
    text = json.dumps(asdict(about), ensure_ascii=False, indent=1)
    write_bytes(folder / _FILE, text.encode(errors="replace"), replace=True)


def _about(said: Mapping[str, Any]) -> About | None:
    """Build the note; None if a value is missing or of another type."""
    values: dict[str, Any] = {field.name: said.get(field.name) for field in fields(About)}
    for name in ("saved", "parts"):
        found = values[name]
        if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
            return None
        values[name] = tuple(found)
    known = all(type(values[name]) is type(getattr(About(), name)) for name in values)
    return About(**values) if known and values["state"] in get_args(Ending) else None
