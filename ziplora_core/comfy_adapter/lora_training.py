"""Training a new LoRA on an opened model: what is the same whatever it learns from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..checkpoint import CheckpointFolder
from ..lora import LoRA
from ..lora_objective import LoRAObjective
from ..trainable import Hooks, TrainedLoRA, TrainingRecord, Watch
from ..training import train
from .free_memory import free_memory
from .memory import PeakMemory, plan_memory
from .private_copy import source_name
from .save_now import save_so_far
from .training_model import TrainingModel

Pictures = Sequence[Tensor]
"""Each `(h, w, 3)` in 0…1."""


def train_lora(
    opened: TrainingModel,
    task: LoRAObjective[Any, Any],
    folder: CheckpointFolder,
    watch: Watch,
    export: Callable[[TrainedLoRA], LoRA],
    draw: Callable[[], Pictures],
    on_end: Callable[[], Pictures] = lambda: (),
    parts: Callable[[TrainedLoRA], Mapping[str, LoRA]] = lambda trained: {},
    saves: bool = False,
) -> TrainedLoRA:
    """Plan the memory, run the loop, and show samples in between and at the end.

    Args:
        opened: the model that `task` trains beside.
        folder: its checkpoint; gone afterwards, unless the person has stopped it to go on.
        watch: who follows it.
        export: gives the LoRA as it is, with what its file says.
        draw: draws samples with the LoRA as it is, every `sample_every` steps.
        on_end: measures when the steps are done, and gives the last samples to show; a cancel in
            it, as everywhere in the loop, keeps the steps.
        parts: gives what of it is a LoRA of its own, by name; saved in its place.
        saves: save as often as samples are drawn.
    """
    settings, options = task.settings, task.settings.options
    plan = plan_memory(
        opened, settings.memory, options.batch, task.terms, task.largest, task.parameters
    )
    watch.on_status(str(plan))
    peak = PeakMemory(opened.device)
    others = opened.evaluations  # than the training's own

    @torch.no_grad()
    def looked(look: Callable[[], Pictures]) -> Pictures:
        nonlocal others
        before = opened.evaluations
        task.fold()
        pictures = look()
        others += opened.evaluations - before
        return pictures

    def so_far(record: TrainingRecord) -> TrainedLoRA:
        return TrainedLoRA(
            record=record,
            memory=(str(plan), str(peak)),
            low_memory=task.low_memory,
            evaluations=opened.evaluations - others,
            v_prediction=opened.v_prediction,
            dtype=opened.dtype,
            checkpoint=source_name(opened.patcher),
        )

    def on_step(record: TrainingRecord) -> None:
        peak.look()
        every = options.sample_every
        in_between = every and record.step % every == 0 and record.step < settings.steps
        if in_between and (pictures := looked(draw)):
            watch.on_samples(record.step, pictures)
        if watch.should_save() or (in_between and saves):
            trained = so_far(record)
            save_so_far(
                watch, folder.path.name, record.step, parts(trained) or {"": export(trained)}
            )
        watch.on_step(record)

    def finish(record: TrainingRecord) -> None:
        if pictures := looked(on_end):
            watch.on_samples(record.step, pictures)
            watch.on_step(record)

    hooks = Hooks(
        lambda record: export(so_far(record)), on_step, watch.should_stop, finish,
        parts=lambda record: parts(so_far(record)), free_memory=free_memory,
    )  # fmt: skip
    record = train(task, settings.steps, options, hooks, folder)
    if not record.asked_to_stop:
        folder.remove()
    return so_far(record)
