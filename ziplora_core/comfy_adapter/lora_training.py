"""Training a new LoRA on an opened model: what is the same whatever it learns from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..checkpoint import CheckpointFolder
from ..keeping import attempt
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
    notes: list[str],
    export: Callable[[TrainedLoRA], LoRA],
    draw: Callable[[], Pictures],
    on_end: Callable[[], Pictures] = lambda: (),
    parts: Callable[[TrainedLoRA], Mapping[str, LoRA]] = lambda trained: {},
    saves: bool = False,
) -> TrainedLoRA:
    """Plan the memory, run the loop, and show samples in between and at the end.

    Args:
        opened: the model that `task` trains beside.
        folder: its checkpoint.
        watch: who follows it, and is handed the checkpoint in the end.
        notes: see `attempt`.
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
    def looked(what: str, look: Callable[[], Pictures]) -> Pictures | None:
        nonlocal others
        before = opened.evaluations

        def folded() -> Pictures:
            task.fold()
            return look()

        pictures = attempt(what, folded, notes, None)
        if pictures is None:
            free_memory()
            opened.load()  # a VAE that failed may still have its place
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

    def exported(trained: TrainedLoRA) -> Mapping[str, LoRA]:
        return parts(trained) or {"": export(trained)}

    def on_step(record: TrainingRecord) -> None:
        attempt("looking at the memory in use", peak.look, notes, None)
        every = options.sample_every
        in_between = every and record.step % every == 0 and record.step < settings.steps
        if in_between:
            pictures = looked("drawing the sample pictures", draw)
            if pictures:
                watch.on_samples(record.step, pictures)
        if watch.should_save() or (in_between and saves):
            run, step = folder.path.name, record.step
            save_so_far(watch, notes, run, step, lambda: exported(so_far(record)))
        watch.on_step(record)

    def finish(record: TrainingRecord) -> None:
        if pictures := looked("looking at the result", on_end):
            watch.on_samples(record.step, pictures)
            watch.on_step(record)

    hooks = Hooks(
        lambda record: export(so_far(record)), on_step, watch.should_stop, finish,
        parts=lambda record: parts(so_far(record)), free_memory=free_memory,
    )  # fmt: skip
    record = train(task, settings.steps, options, hooks, folder)
    watch.on_trained(folder, record)
    return so_far(record)
