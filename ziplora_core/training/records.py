"""Records of trainings, which stay when the checkpoint is gone: losses, samples, what was queued.

A record is a folder beside the checkpoints, of the checkpoint's name. A training that goes on from
its checkpoint goes on in its record.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files.atomic import write_bytes
from .sample_strips import Strip

RECORDS = "records"
"""The folder of all records, beside that of the checkpoints."""
MOST_PICTURES = 16
"""Largest number of sample pictures in a record; beyond it, every second one is dropped."""
LONGEST_REQUEST = 8_000_000
"""Most bytes of a prompt with its workflow; one that is longer is not kept."""
_LARGEST = 10**12
"""More than any number of a step."""
_FILE, _REQUEST = "record.json", "request.json"
_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "method": str, "title": str, "started": (int, float), "ended": (int, float), "key": str,
    "seconds": (int, float), "settings": list, "files": list, "state": str, "status": str,
    "step": int, "steps": int, "errors": list, "samples": list, "captions": list, "points": dict,
    "saved_at": dict,
}  # fmt: skip
"""The values of a record that its readers count on."""


@dataclass(frozen=True)
class RecordFolder:
    """The folder of one record.

    Args:
        path: the folder, which need not exist.
    """

    path: Path

    @classmethod
    def beside(cls, checkpoint: Path) -> RecordFolder:
        """Return the record of the training with this checkpoint folder."""
        return cls(checkpoint.parent.parent / RECORDS / checkpoint.name)

    def read(self) -> dict[str, Any] | None:
        """Read the record; None where there is none, or none that can be read."""
        found = _read(self.path / _FILE)
        said = {"saved_at": {}, **(found or {})}  # which earlier versions did not write
        if not all(isinstance(said.get(name), kind) for name, kind in _TYPES.items()):
            return None
        return said if _has_numbers(said) else None

    def request(self) -> dict[str, Any] | None:
        """Read what was queued, `prompt` and `workflow`; None where it was not kept."""
        said = _read(self.path / _REQUEST)
        return said if said and isinstance(said.get("prompt"), dict) else None

    def picture(self, step: int) -> bytes | None:
        """Read the sample pictures of a step, as one JPEG; None where there are none."""
        try:
            return self._picture_file(step).read_bytes()
        except OSError:
            return None

    def write(self, said: Mapping[str, Any], strips: Mapping[int, Strip]) -> None:
        """Write the record and its pictures, and remove pictures that are no part of it.

        Raises:
            OSError: the disk is full or not writable; an earlier record is untouched.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        shown = fewer(sorted(strips), MOST_PICTURES)
        for step in shown:
            if not self._picture_file(step).exists():
                write_bytes(self._picture_file(step), strips[step].jpeg, replace=True)
        captions = [strips[step].captions for step in shown]
        text = json.dumps({**said, "samples": shown, "captions": captions}, ensure_ascii=False)
        write_bytes(self.path / _FILE, text.encode(errors="replace"), replace=True)
        files = {self._picture_file(step) for step in shown}
        for old in set(self.path.glob("*.jpg")) - files:
            old.unlink(missing_ok=True)

    def write_request(self, prompt: object, workflow: object) -> None:
        """Write what was queued, from which the training can be opened and queued again.

        Raises:
            OSError: the disk is full or not writable.
        """
        data = json.dumps({"prompt": prompt, "workflow": workflow}).encode()
        self.path.mkdir(parents=True, exist_ok=True)
        if len(data) <= LONGEST_REQUEST:
            write_bytes(self.path / _REQUEST, data, replace=True)
        else:
            (self.path / _REQUEST).unlink(missing_ok=True)

    def add_file(self, name: str, step: int) -> None:
        """Note the name of a file with the result after a step, as LoRA loaders list it.

        Raises:
            OSError: the disk is full or not writable.
        """
        said = self.read()
        if said is not None and name not in said["files"]:
            said["files"].append(name)
            said["saved_at"][name] = step
            text = json.dumps(said, ensure_ascii=False)
            write_bytes(self.path / _FILE, text.encode(errors="replace"), replace=True)

    def _picture_file(self, step: int) -> Path:
        return self.path / f"{step}.jpg"


def fewer(steps: Sequence[int], most: int) -> list[int]:
    """Drop every second step, the last one stays, until there are at most `most`."""
    left = list(steps)
    while len(left) > most:
        left = left[::-2][::-1]
    return left


def _has_numbers(said: Mapping[str, Any]) -> bool:
    """Tell whether all columns are of one length, and all values numbers or None."""
    columns = said["points"].values()
    if "step" not in said["points"] or not all(isinstance(c, list) for c in columns):
        return False
    whole = (
        said["step"],
        said["steps"],
        *said["points"]["step"],
        *said["samples"],
        *said["saved_at"].values(),
    )
    values = (
        said["started"],
        said["ended"],
        said["seconds"],
        *said["errors"],
        *(v for c in columns for v in c),
    )
    return (
        len({len(c) for c in columns}) == 1
        and all(type(n) is int and 0 <= n < _LARGEST for n in whole)
        and all(v is None or (type(v) in (int, float) and math.isfinite(v)) for v in values)
        and all(isinstance(name, str) for name in said["files"])
        and all(isinstance(texts, list) for texts in said["captions"])
    )


def _read(file: Path) -> dict[str, Any] | None:
    """Read a JSON object; None where there is none. JSON has no NaN, though Python reads it."""
    try:
        said = json.loads(file.read_bytes(), parse_constant=_refuse)
    except (OSError, ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def _refuse(name: str) -> None:
    raise ValueError(name)
