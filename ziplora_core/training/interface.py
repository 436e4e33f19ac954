"""The interface between a method and the training loop: task, record and callbacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from ..lora.factors import LoRA
from ..lora.origin import Origin
from .checkpoint import CheckpointFolder
from .saved_state import Layout


class TrainingTask(Protocol):
    """The part of a training that depends on the method."""

    @property
    def parameters(self) -> list[Tensor]:
        """The float32 leaves, which the loop updates in place."""
        ...

    @property
    def learning_rates(self) -> list[float]:
        """The learning rate of each leaf, before the schedule."""
        ...

    @property
    def optimiser(self) -> str:
        """The method's own optimiser, used for `auto`."""
        ...

    @property
    def weight_decay(self) -> float:
        """The weight decay, if the optimiser is AdamW."""
        ...

    @property
    def low_memory(self) -> bool:
        """Whether it computes with low memory; checkpoints record it, as sums depend on it."""
        ...

    @property
    def extra_state(self) -> Mapping[str, Tensor]:
        """The tensors that the next step needs beside the parameters and the step's number.

        The loop keeps these tensors, so a step replaces them and never changes them in place.
        """
        ...

    def extra_layout(self, step: int) -> Mapping[str, Layout]:
        """Return the shape and dtype of each tensor in `extra_state` after `step` steps."""
        ...

    def load_extra_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the `extra_state` of an interrupted run, or from before a failure."""
        ...

    def backward(self, step: int) -> Mapping[str, Tensor]:
        """Add one step's gradients; return detached scalars by term, among them `loss`."""
        ...

    def after_step(self) -> None:
        """Clamp parameters that have bounds, after every update."""
        ...

    def save_memory(self) -> bool:
        """Switch to low memory with the same results; return False when it was on already."""
        ...

    def finished(self, history: Mapping[str, Sequence[float]]) -> str | None:
        """Return the reason for an early stop, or None."""
        ...


class PlainTask:
    """The part of a `TrainingTask` without extra state or bounds, on a model that checkpoints."""

    model: Any
    """A model with the attribute `checkpointing`."""

    @property
    def low_memory(self) -> bool:
        return self.model.checkpointing

    @property
    def extra_state(self) -> dict[str, Tensor]:
        return {}

    def extra_layout(self, step: int) -> Mapping[str, Layout]:
        return {}

    def load_extra_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore nothing."""

    def after_step(self) -> None:
        """Clamp nothing."""

    def save_memory(self) -> bool:
        """Recompute activations from now on; return False when that was on already."""
        was, self.model.checkpointing = self.model.checkpointing, True
        return not was


@dataclass
class TrainingRecord:
    """The record of a run: the terms of every step, the steps that count, why it ended early.

    A run with `asked_to_stop` keeps a checkpoint and can continue; any other ending is final.
    `failed`: the loss diverged or was not finite, and an earlier state was kept.
    `origin`: where the last state is kept, once the run has ended.
    """

    history: dict[str, list[float]] = field(default_factory=dict)
    step: int = 0
    resumed_at: int = 0
    stopped: str | None = None
    asked_to_stop: bool = False
    failed: bool = False
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    origin: Origin | None = None


@dataclass(frozen=True)
class TrainedLoRA:
    """The outcome of training a new LoRA, so far or at its end.

    Args:
        record: the loop's record.
        memory: report lines on estimated and peak memory.
        low_memory: whether it ended with checkpointed blocks.
        evaluations: number of samples that went through the UNet for training, not for pictures.
        v_prediction, flow, dtype: the model's prediction type and dtype.
        checkpoint: file name of the model it was trained on, empty when unknown.
    """

    record: TrainingRecord
    memory: Sequence[str]
    low_memory: bool
    evaluations: int
    v_prediction: bool
    flow: bool
    dtype: torch.dtype
    checkpoint: str


def remove_if_spent(folder: CheckpointFolder, record: TrainingRecord) -> None:
    """Remove the checkpoint of a training that has ended; keep that of a stopped one."""
    if not record.asked_to_stop:
        folder.remove()


@dataclass(frozen=True)
class ProgressCallbacks:
    """The user's view and control of a training.

    Args:
        on_step: called after every step; may raise to cancel.
        should_stop: called before every step; True to stop and keep the result.
        should_save: called after every step; True to write the current LoRA and continue.
        on_prepare: called with (done, total) UNet evaluations before the first step.
        on_status: called with status texts before the first step, the last on memory needed.
        on_start: called before the first step with the checkpoint folder, the record, which is that
            of the interrupted run where a checkpoint was resumed, and with whether the same inputs
            go on from the folder.
        on_samples: called with a step, its sample pictures `(h, w, 3)` in 0…1, and a caption for
            each of them.
        on_solved: called after each pass of the closed form with the layers' remaining errors:
            1 for the direct merge, then one for each pass.
        on_saved: called with the names, as LoRA loaders list them, of files written on the way, and
            with their step.
        on_trained: called with the checkpoint folder and the record when the steps are done. By
            default a spent checkpoint is removed, as the caller has the result; a node leaves it
            there until the result is in a file.
        name: start of the names of files written on the way; by default the training's title.
    """

    on_step: Callable[[TrainingRecord], None] = lambda record: None
    should_stop: Callable[[], bool] = lambda: False
    should_save: Callable[[], bool] = lambda: False
    on_prepare: Callable[[int, int], None] = lambda done, total: None
    on_status: Callable[[str], None] = lambda text: None
    on_start: Callable[[CheckpointFolder, TrainingRecord, bool], None] = lambda *said: None
    on_samples: Callable[[int, Sequence[Tensor], Sequence[str]], None] = lambda step, p, c: None
    on_solved: Callable[[Sequence[float]], None] = lambda errors: None
    on_saved: Callable[[Sequence[str], int], None] = lambda names, step: None
    on_trained: Callable[[CheckpointFolder, TrainingRecord], None] = remove_if_spent
    name: str = ""


@dataclass(frozen=True)
class LoopCallbacks:
    """The loop's view of its caller.

    Args:
        on_step: called after every step; may raise to cancel.
        on_start: called before the first step, after a checkpoint was resumed.
        on_end: called when the steps are done; a cancel in it still keeps a checkpoint.
        should_stop: called before every step; True to stop and keep the result.
        export: returns the current LoRA, which an interrupted run writes.
        start_counts: whether the initial state is a result, to be kept when the first steps fail.
        parts: returns additional current LoRAs by file name, written beside it.
        free_memory: called after memory has run out, before the step is repeated.
    """

    export: Callable[[TrainingRecord], LoRA]
    on_step: Callable[[TrainingRecord], None] = lambda record: None
    should_stop: Callable[[], bool] = lambda: False
    on_start: Callable[[TrainingRecord], None] = lambda record: None
    on_end: Callable[[TrainingRecord], None] = lambda record: None
    start_counts: bool = False
    parts: Callable[[TrainingRecord], Mapping[str, LoRA]] = lambda record: {}
    free_memory: Callable[[], None] = lambda: None


NO_CALLBACKS = ProgressCallbacks()
"""For a training that nobody watches."""
