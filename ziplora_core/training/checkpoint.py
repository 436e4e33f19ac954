"""Checkpoints of a training run: the resume state and the current LoRA, in a folder per inputs."""

from __future__ import annotations

import io
import logging
import pickle
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..files.atomic import write_bytes
from ..files.metadata import lora_metadata
from ..files.writer import lora_bytes
from ..lora.factors import LoRA
from .resume_key import Inputs

logger = logging.getLogger(__name__)

STATE = frozenset(
    (
        *("parameters", "optimiser", "extra_state", "step", "history", "seconds", "notes"),
        *("low_memory", "failed"),
    )
)
"""The entries of a checkpoint."""


@dataclass(frozen=True)
class CheckpointFolder:
    """A folder with `state.pt`, a record of the inputs and, once interrupted, `lora.safetensors`.

    Equal inputs find the same folder, different inputs another one; see `of`.
    """

    path: Path
    inputs: Inputs | None = None

    @classmethod
    def of(cls, inputs: Inputs, root: Path) -> CheckpointFolder:
        """Return the folder of these inputs under `root`, whether it exists or not."""
        return cls(inputs.find_folder(root), inputs)

    @property
    def state_file(self) -> Path:
        return self.path / "state.pt"

    @property
    def lora_file(self) -> Path:
        return self.path / "lora.safetensors"

    def load(self) -> dict[str, Any] | None:
        """Read the resume state, None without one; a damaged one is renamed, with a log message."""
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
        if self.inputs is not None:
            self.inputs.remember(self.path)
        buffer = io.BytesIO()
        torch.save(dict(state), buffer)
        write_bytes(self.state_file, buffer.getbuffer(), replace=True)

    def save_lora(self, lora: LoRA, name: str) -> None:
        """Write the current LoRA in fp16, with its metadata.

        Raises:
            OSError: the disk is full or not writable.
            ZipLoRAError: the LoRA is not finite in fp16.
        """
        description = "LoRA from an interrupted training"
        metadata = lora_metadata(
            lora.modules, title=name, description=description, extra=lora.metadata
        )
        file = self.lora_file.with_stem(name)
        write_bytes(file, lora_bytes(lora.modules, metadata, torch.float16), replace=True)

    def say_kept(self) -> None:
        """Log the location of the checkpoint, if there is one, after an error."""
        if self.state_file.exists():
            logger.error(
                "ZipLoRA: the training state is kept in %s; queue the same inputs to go on.",
                self.path,
            )

    def remove(self) -> None:
        """Delete the folder, once the run's result has been handed over."""
        shutil.rmtree(self.path, ignore_errors=True)
