"""Checkpoints of a training run: resume state and LoRA so far, one folder per set of inputs."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import pickle
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .files.atomic import write_bytes
from .files.metadata import lora_metadata
from .files.writer import lora_bytes
from .lora import LoRA

logger = logging.getLogger(__name__)

VERSION = 4
"""Of what a run does with its inputs; another version does not resume this one's checkpoints."""
STATE = frozenset(
    (
        *("parameters", "optimiser", "carried", "step", "history", "seconds", "notes"),
        *("low_memory", "failed"),
    )
)
"""What a checkpoint holds."""


@dataclass(frozen=True)
class CheckpointFolder:
    """`<root>/<hash of the inputs>/` with `state.pt` and, once cut short, `lora.safetensors`.

    Equal inputs find each other's checkpoint; any other input has another folder.
    """

    path: Path

    @property
    def state_file(self) -> Path:
        return self.path / "state.pt"

    @property
    def lora_file(self) -> Path:
        return self.path / "lora.safetensors"

    def load(self) -> dict[str, Any] | None:
        """Read the resume state; None when there is none. A damaged one is set aside, and said."""
        if not self.state_file.exists():
            return None
        try:
            state = torch.load(self.state_file, map_location="cpu", weights_only=True)
            if isinstance(state, dict) and set(state) == STATE:
                return state
            error = "it has other contents"
        except (RuntimeError, OSError, EOFError, ValueError, pickle.UnpicklingError) as found:
            error = str(found)
        aside = self.state_file.with_suffix(".damaged")
        self.state_file.replace(aside)
        logger.warning("%s cannot be read (%s): starting anew.", aside, error)
        return None

    def save(self, state: Mapping[str, Any]) -> None:
        """Write the state atomically.

        Raises:
            OSError: the disk is full or not writable; an earlier checkpoint is untouched.
        """
        assert set(state) == STATE
        self.path.mkdir(parents=True, exist_ok=True)
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        write_bytes(self.state_file, buffer.getbuffer(), replace=True)

    def save_lora(self, lora: LoRA, name: str) -> None:
        """Write a LoRA so far in fp16, with all it says of itself.

        Raises:
            OSError: the disk is full or not writable.
            ZipLoRAError: it is not finite in fp16.
        """
        description = "LoRA of a training that was cut short"
        metadata = lora_metadata(
            lora.modules, title=name, description=description, extra=lora.metadata
        )
        file = self.lora_file.with_stem(name)
        write_bytes(file, lora_bytes(lora.modules, metadata, torch.float16), replace=True)

    def say_kept(self) -> None:
        """Say in the log what there is to go on from, after something has gone wrong."""
        if self.state_file.exists():
            logger.error(
                "ZipLoRA: what was learned is kept in %s; queue the same inputs to go on.",
                self.path,
            )

    def remove(self) -> None:
        """Delete the folder of a run whose result is out."""
        shutil.rmtree(self.path, ignore_errors=True)


def fingerprint(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Hash everything a result depends on: settings by their JSON, tensors by their bytes."""
    text = json.dumps([VERSION, settings], sort_keys=True, default=str)
    digest = hashlib.blake2b(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def sampled(tensor: Tensor, count: int = 256) -> Tensor:
    """Take about `count` evenly spaced values: enough to tell two checkpoints' weights apart.

    The stride is odd: a multiple of the row length would see one column only.
    """
    flat = tensor.detach().reshape(-1)
    return flat[:: max(1, len(flat) // count) | 1].float()
