"""What the page lists of past trainings: their records, and what is left to go on from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from .checkpoint import CheckpointFolder
from .kept import RUNNING, Kept
from .past import past
from .records import RecordFolder

NAME = r"[0-9a-f]{16}-[0-9a-f]{8}"
"""A training's name: what its checkpoint's folder and its record are called."""


def entries(root: Path) -> list[dict[str, Any]]:
    """List past trainings, the last used one first.

    Args:
        root: the pack's work folder.

    Returns:
        of each its `name`, `method`, `title`, `state`, `step`, `steps`, `started` and `ended` in
        seconds since 1970, `seconds` of training, `bytes` on the disk, `files` with its result,
        `saved_at`, the steps of those of which it is known, `samples` (their steps), whether it
        `continues` when the same is queued again, and whether it is `recorded`: trainings of
        earlier versions of the pack are not.
    """
    kept = past(root)
    found: dict[str, list[Kept]] = {}
    for each in (*kept.trainings, *kept.records):
        if re.fullmatch(NAME, each.path.name):
            found.setdefault(each.path.name, []).append(each)
    listed = [_entry(root, name, folders) for name, folders in found.items()]
    return sorted(listed, key=lambda entry: -entry["ended"])


def details(root: Path, name: str) -> dict[str, Any] | None:
    """Return one entry with its losses and settings; None if there is none of this name.

    Args:
        root: the pack's work folder.
        name: see NAME; anything else is not found.
    """
    kept = past(root)
    folders = [k for k in (*kept.trainings, *kept.records) if k.path.name == name]
    if not folders or not re.fullmatch(NAME, name):
        return None
    said = record(root, name).read() or {}
    more = {key: said.get(key, instead) for key, instead in _MORE.items()}
    return {**more, **_entry(root, name, folders)}


_MORE = {"points": {"step": []}, "captions": [], "errors": [], "settings": [], "status": ""}


def record(root: Path, name: str) -> RecordFolder:
    """Return the record of that name, whether it exists or not."""
    return RecordFolder.beside(root / "checkpoints" / name)


def _entry(root: Path, name: str, folders: list[Kept]) -> dict[str, Any]:
    folder = record(root, name)
    said, about = folder.read(), next((k.about for k in folders if k.about), None)
    running = any(k.in_use for k in folders)
    unfinished = any(map(_can_go_on, folders))
    used = max(k.used for k in folders)
    first: dict[str, Any] = {
        "name": name, "bytes": sum(k.bytes for k in folders), "recorded": said is not None,
    }  # fmt: skip
    if said is not None:
        state = said["state"] if said["state"] != RUNNING else "cut short"
        same = ("method", "title", "step", "steps", "started", "ended", "seconds")
        lists = ("files", "saved_at", "samples")
        can = unfinished and not running and said.get("resumes") is True
        return {
            **first, **{key: said[key] for key in (*same, *lists)},
            "state": RUNNING if running else state,
            "continues": can and folder.request() is not None,
        }  # fmt: skip
    return {
        **first, "method": about.method if about else "", "title": about.title if about else "",
        "step": about.step if about else 0, "steps": about.steps if about else 0,
        "state": RUNNING if running else "cut short" if unfinished else "finished",
        "started": used, "ended": used, "seconds": 0.0, "samples": [],
        "files": [*about.saved] if about else [], "saved_at": {}, "continues": False,
    }  # fmt: skip


def _can_go_on(kept: Kept) -> bool:
    """Tell whether a training goes on from a folder, also where its LoRA so far is in a file."""
    about = kept.about
    if about is None or about.state != "unfinished":
        return False
    return CheckpointFolder(kept.path).state_file.exists()
