"""Keep what a run makes, by its inputs: an interrupted run goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from miniworld.checkpoint import SMALL
from miniworld.probe_files import PROBES
from sandbox.paths import ROOT, SANDBOX

FOLDER = SANDBOX / "quality"

State = dict[str, Any]
"""Tensors, numbers, texts, and dictionaries or lists of them."""


def cached(kind: str, inputs: Mapping[str, Any], make: Callable[[], State]) -> State:
    """Give what was made of these inputs before, or make and keep it.

    Args:
        kind: the folder that it is kept in.
        inputs: all that it depends on beside the miniature's own files: tensors, texts, numbers.
    """
    path = FOLDER / kind / f"{_digest(inputs)}.pt"
    if path.is_file():
        try:
            return torch.load(path, weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError):
            path.unlink()  # of a run that was killed
    state = make()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    torch.save(state, part)
    part.replace(path)
    return state


def code(*parts: str) -> str:
    """Digest the program's files under these paths of the repository.

    Call it as modules are imported: a file may be edited while a run is on.

    Raises:
        FileNotFoundError: there is no file under a path.
    """
    files = [file for part in parts for file in _files(ROOT / part)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _files(path: Path) -> Sequence[Path]:
    files = [path] if path.is_file() else sorted(path.rglob("*.py"))
    if not files:
        raise FileNotFoundError(path)
    return files


def _digest(inputs: Mapping[str, Any]) -> str:
    sums = {name: _text(value) for name, value in inputs.items()}
    files = [hashlib.sha256(file.read_bytes()).hexdigest() for file in (SMALL, PROBES)]
    return hashlib.sha256(json.dumps([sums, files], sort_keys=True).encode()).hexdigest()[:24]


def _text(value: Any) -> str:
    if isinstance(value, Tensor):
        return hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()
    return repr(value)
