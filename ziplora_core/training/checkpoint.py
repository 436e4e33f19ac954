"""Checkpoints of a training run: the resume state and the current LoRA, in a folder per inputs."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..files.atomic import write_bytes
from ..files.metadata import lora_metadata
from ..files.writer import lora_bytes
from ..lora.factors import LoRA
from ..lora.origin import Origin
from .about import About, Ending, read_about, write_about
from .records import RecordFolder
from .resume_key import Inputs
from .saved_state import SavedState, unpacked
from .state_file import UnusableStateError, read_state_file, write_state_file

logger = logging.getLogger(__name__)

_HALVES = frozenset(("content", "style"))
"""The parts of a result that together are the whole."""
_FOLDER = "ziplora.folder"


@dataclass(frozen=True)
class FoundState:
    """What there was to resume.

    Args:
        state: the state; None to start anew.
        notes: lines for the report on files that were found but not resumed.
    """

    state: SavedState | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckpointFolder:
    """A folder with a training's state, notes on it and, once interrupted, `lora.safetensors`.

    Equal inputs find the same folder, different inputs another one; see `of`. The state of a
    training that has ended stays until the result is in a file; see `mark_saved`.

    Args:
        path: the folder.
        inputs: inputs of the training, which are remembered there.
        method, title: see `About`.
    """

    path: Path
    inputs: Inputs | None = None
    method: str = ""
    title: str = ""

    @classmethod
    def of(cls, inputs: Inputs, root: Path, method: str = "", title: str = "") -> CheckpointFolder:
        """Return the folder of these inputs under `root`, whether it exists or not."""
        return cls(inputs.find_folder(root), inputs, method, title)

    @property
    def state_file(self) -> Path:
        return self.path / "state.safetensors"

    @property
    def older_state_file(self) -> Path:
        """The state that earlier versions of the pack have written, a pickle."""
        return self.path / "state.pt"

    @property
    def set_aside_file(self) -> Path:
        """The last state that could not be resumed."""
        return self.path / "state.set_aside"

    @property
    def lora_file(self) -> Path:
        return self.path / "lora.safetensors"

    def about(self) -> About | None:
        """Return what the folder says about its training; None without a note."""
        return read_about(self.path)

    def load(self, check: Callable[[SavedState], None] = lambda state: None) -> FoundState:
        """Read the resume state; set aside what cannot be resumed, and say so.

        Args:
            check: raises UnusableStateError for a state that is not of this training.
        """
        notes: list[str] = []
        if self.older_state_file.exists():
            reason = "an earlier version of the pack wrote it, in another format"
            notes.append(self._set_aside(self.older_state_file, reason))
        if not self.state_file.exists():
            return FoundState(notes=(*notes, *self._unknown_folders()))
        try:
            tensors, said = read_state_file(self.state_file)
            if said.get(_FOLDER) != self.path.name:
                raise UnusableStateError("it is of another training")
            state = unpacked(tensors, said)
            check(state)
        except UnusableStateError as error:
            notes.append(self._set_aside(self.state_file, str(error)))
            return FoundState(notes=tuple(notes))
        return FoundState(state, tuple(notes))

    def _unknown_folders(self) -> list[str]:
        """Name folders that may be this training's, but do not say so: log and return lines."""
        found = self.inputs.unreadable_folders(self.path.parent) if self.inputs else []
        lines = [
            f"WARNING: the checkpoint {path.name} has the settings of this training, but its other "
            "inputs cannot be read: it was not resumed, and the training has started anew."
            for path in found
            if path != self.path
        ]
        for line in lines:
            logger.warning("ZipLoRA, in %s: %s", self.path.parent, line)
        return lines

    def _set_aside(self, file: Path, reason: str) -> str:
        """Rename a file that is not to be resumed; log and return the report's line."""
        line = f"WARNING: the checkpoint {self.path.name}/{file.name} was not resumed: {reason}."
        try:
            file.replace(self.set_aside_file)
            line += f" It is now {self.set_aside_file.name}, and the training has started anew."
        except OSError as error:
            line += f" It could not be renamed ({error}); the training has started anew."
        logger.warning("ZipLoRA, in %s: %s", self.path, line)
        return line

    def save(self, state: SavedState) -> None:
        """Write the state atomically, then the notes on it.

        Raises:
            OSError: the disk is full or not writable; an earlier checkpoint is untouched.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if self.inputs is not None:
            self.inputs.remember(self.path)
        tensors, said = state.packed()
        write_state_file(self.state_file, tensors, {**said, _FOLDER: self.path.name})
        before = self.about() or About()
        ending: Ending = "finished" if state.has_ended else "unfinished"
        write_about(
            self.path,
            About(
                self.method, self.title, state.steps, state.step,
                "rolled back" if state.failed else ending, saved=before.saved,
            ),
        )  # fmt: skip

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

    def origin(self, step: int) -> Origin | None:
        """Return the origin of a result after `step` steps; None if that state is not here."""
        about = self.about()
        here = about is not None and about.step == step and self.state_file.exists()
        return Origin(self.path, step) if here else None

    def mark_saved(self, origin: Origin, name: str) -> None:
        """Note that a result is in a file, and delete the folder once all of it is.

        The state of a training that can go on stays, and so does one of another step.

        Args:
            origin: the result's origin, of which `folder` is this folder.
            name: name of the file, as LoRA loaders list it.
        """
        about = self.about()
        if about is None:
            return  # it was deleted: another file has the result, or someone made room
        parts = {*about.parts, origin.part} if origin.step == about.step else {*about.parts}
        if about.state != "unfinished" and ("" in parts or parts >= _HALVES):
            self.remove()
            return
        saved = tuple(dict.fromkeys([*about.saved, name]))
        try:
            write_about(self.path, replace(about, saved=saved, parts=tuple(sorted(parts))))
        except OSError as error:
            logger.warning("ZipLoRA: %s is saved, but not noted in %s: %s", name, self.path, error)

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.path, ignore_errors=True)


def mark_saved(lora: object, name: str) -> None:
    """Note that a LoRA is in a file, in the folders of the training that it is the result of.

    Args:
        lora: a LORA_MODEL or a MERGED_LORA, from anywhere.
        name: the file's name.
    """
    origin = getattr(lora, "origin", None)
    if isinstance(origin, Origin):
        CheckpointFolder(origin.folder).mark_saved(origin, name)
        try:
            RecordFolder.beside(origin.folder).add_file(name, origin.step)
        except OSError as error:
            logger.warning("ZipLoRA: %s is saved, but not noted in its record: %s", name, error)
