"""What a method brings to the training loop, and what the loop tells and asks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from .checkpoint import CheckpointFolder
from .lora import LoRA


class Trainable(Protocol):
    """What a method brings to the loop."""

    @property
    def parameters(self) -> list[Tensor]:
        """Float32 leaves; the loop updates them in place."""
        ...

    @property
    def learning_rates(self) -> list[float]:
        """Of each leaf, before the schedule."""
        ...

    @property
    def optimiser(self) -> str:
        """The method's own optimiser, for `auto`."""
        ...

    @property
    def weight_decay(self) -> float:
        """Of AdamW, if that is the optimiser."""
        ...

    @property
    def low_memory(self) -> bool:
        """Whether it computes in the frugal way; a checkpoint says so, for sums depend on it."""
        ...

    @property
    def carried(self) -> Mapping[str, Tensor]:
        """What the next step needs beside the parameters and the step's number, if anything.

        The loop keeps these tensors: a step makes new ones rather than change them.
        """
        ...

    def carry(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what was `carried` when the run was cut short, or before it went wrong."""
        ...

    def backward(self, step: int) -> Mapping[str, Tensor]:
        """Add one step's gradients; return detached scalars, among them `loss`."""
        ...

    def after_step(self) -> None:
        """Put parameters that have bounds back within them, after every update."""
        ...

    def save_memory(self) -> bool:
        """Switch to the frugal way of computing the same; False when already there."""
        ...

    def finished(self, history: Mapping[str, Sequence[float]]) -> str | None:
        """Say why to stop early, or None."""
        ...


@dataclass
class TrainingRecord:
    """What happened: the terms of every step, how many steps count, why it ended early.

    `asked_to_stop` leaves a checkpoint to go on from; every other ending is the end. `failed`: the
    loss went wrong, and an earlier state was kept.
    """

    history: dict[str, list[float]] = field(default_factory=dict)
    step: int = 0
    resumed_at: int = 0
    stopped: str | None = None
    asked_to_stop: bool = False
    failed: bool = False
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class TrainedLoRA:
    """How the training of a new LoRA has gone, so far or to its end.

    Args:
        record: what the loop did.
        memory: lines about the estimate and the peak.
        low_memory: how it ended: with checkpointed blocks.
        evaluations: samples that went through the UNet to learn, without those that show it.
        v_prediction, dtype: of the model.
        checkpoint: file name of the model it was trained on, empty where that is unknown.
    """

    record: TrainingRecord
    memory: Sequence[str]
    low_memory: bool
    evaluations: int
    v_prediction: bool
    dtype: torch.dtype
    checkpoint: str


def remove_if_spent(folder: CheckpointFolder, record: TrainingRecord) -> None:
    """Remove the checkpoint of a training that has ended; one that was stopped may go on."""
    if not record.asked_to_stop:
        folder.remove()


@dataclass(frozen=True)
class Watch:
    """How a person follows a training and steers it.

    Args:
        on_step: called after every step; may raise to cancel.
        should_stop: asked before every step: stop and keep.
        should_save: asked after every step: write the LoRA so far, and go on.
        on_prepare: told how many of how many UNet evaluations are done before the first step.
        on_status: told what is going on before the first step, last what memory it will need.
        on_samples: given sample pictures `(h, w, 3)` in 0…1, and their step.
        on_solved: given, after each pass of the closed form, what is left of the layers' errors:
            1 by the direct merge, then by each pass.
        on_saved: given the names, as LoRA loaders list them, of what was written on the way.
        on_trained: given the checkpoint when the steps are done; it holds them all. Who hands on
            the result removes it only then, if it is spent; without anyone that is at once.
    """

    on_step: Callable[[TrainingRecord], None] = lambda record: None
    should_stop: Callable[[], bool] = lambda: False
    should_save: Callable[[], bool] = lambda: False
    on_prepare: Callable[[int, int], None] = lambda done, total: None
    on_status: Callable[[str], None] = lambda text: None
    on_samples: Callable[[int, Sequence[Tensor]], None] = lambda step, pictures: None
    on_solved: Callable[[Sequence[float]], None] = lambda errors: None
    on_saved: Callable[[Sequence[str]], None] = lambda names: None
    on_trained: Callable[[CheckpointFolder, TrainingRecord], None] = remove_if_spent


@dataclass(frozen=True)
class Hooks:
    """How the loop is watched and steered from outside.

    Args:
        on_step: called after every step; may raise to cancel.
        on_end: called when the steps are done, and still covered: a cancel in it keeps them.
        should_stop: asked before every step: stop and keep.
        export: the LoRA so far, to keep when the run is cut short.
        start_counts: the start is a result already, and kept when the first steps go wrong.
        parts: further LoRAs so far by file name, kept beside it.
        free_memory: called after memory has run out, before the step is tried once more.
    """

    export: Callable[[TrainingRecord], LoRA]
    on_step: Callable[[TrainingRecord], None] = lambda record: None
    should_stop: Callable[[], bool] = lambda: False
    on_end: Callable[[TrainingRecord], None] = lambda record: None
    start_counts: bool = False
    parts: Callable[[TrainingRecord], Mapping[str, LoRA]] = lambda record: {}
    free_memory: Callable[[], None] = lambda: None
