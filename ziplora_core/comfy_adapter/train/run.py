"""The run of the training loop on an opened model, which all sessions share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from ...lora.factors import LoRA
from ...training.checkpoint import CheckpointFolder
from ...training.interface import (
    LoopCallbacks,
    ProgressCallbacks,
    TrainedLoRA,
    TrainingRecord,
    TrainingTask,
)
from ...training.limits import kept_within_limits
from ...training.loop import train
from ...training.lora_objective import LoRAObjective
from ...training.options import TrainingOptions
from ...training.protection import attempt
from ...training.report import kept_line
from ..data.pictures import refuse_other_vae
from ..model.bases import refuse_other_than_sdxl, refuse_refiner, refuse_refiners_clip
from ..model.memory import PeakMemory, plan_memory
from ..model.memory_advice import free_memory, memory_advice
from ..model.private_copy import refuse_patched, source_name
from ..model.training_model import TrainingModel
from .save_now import save_so_far

Pictures = Sequence[Tensor]
"""Pictures `(h, w, 3)` in 0…1."""


@contextmanager
def training_mode(advice: str) -> Iterator[None]:
    """Leave ComfyUI's inference mode, whose tensors autograd refuses, and enable gradients.

    Args:
        advice: the first thing to do when memory runs out; see `memory_advice`.

    Raises:
        ZipLoRAError: in place of an out-of-memory error.
    """
    with memory_advice(advice), torch.inference_mode(False), torch.enable_grad():
        yield


def refuse_untrainable(
    model: Any, vae: Any | None = None, clip: Any | None = None, only_sdxl: bool = True
) -> None:
    """Refuse a MODEL that is patched or not SDXL, and a VAE or CLIP that is not the model's.

    Args:
        model, vae, clip: the node's inputs.
        only_sdxl: whether other families are refused, too.

    Raises:
        ZipLoRAError: one of these is the case; the message names it.
    """
    refuse_patched(model)
    (refuse_other_than_sdxl if only_sdxl else refuse_refiner)(model.model)
    if vae is not None:
        refuse_other_vae(vae, model.model)
    if clip is not None:
        refuse_refiners_clip(clip)


def run_loop(
    task: TrainingTask,
    steps: int,
    options: TrainingOptions,
    folder: CheckpointFolder | None,
    callbacks: ProgressCallbacks,
    notes: list[str],
    export: Callable[[TrainingRecord], LoRA],
    on_end: Callable[[TrainingRecord], None],
    parts: Callable[[TrainingRecord], Mapping[str, LoRA]] = lambda record: {},
    after_step: Callable[[TrainingRecord], bool] = lambda record: False,
    start_counts: bool = False,
) -> TrainingRecord:
    """Run the loop, save the LoRA so far on request, and say where the last state is kept.

    Args:
        task: the objective.
        steps: number of steps.
        options: options of the loop.
        folder: checkpoint folder; None for a run that cannot be resumed.
        callbacks: the user's view and control of the training.
        notes: see `attempt`.
        export, parts, on_end, start_counts: see `LoopCallbacks`.
        after_step: called after every step; returns whether to save the LoRA so far.
    """

    def save_if_asked(record: TrainingRecord, due: bool) -> None:
        if folder and (callbacks.should_save() or due):
            save_so_far(
                callbacks, notes, callbacks.name or folder.title or folder.method, record.step,
                lambda: parts(record) or {"": export(record)},
            )  # fmt: skip

    def on_step(record: TrainingRecord) -> None:
        save_if_asked(record, due=after_step(record))
        callbacks.on_step(record)

    def on_start(record: TrainingRecord) -> None:
        if folder:
            callbacks.on_start(folder, record, options.resume == "auto")

    loop_callbacks = LoopCallbacks(
        export, on_step, callbacks.should_stop, on_start, on_end, start_counts, parts, free_memory
    )
    if folder is None:
        return train(task, steps, options, loop_callbacks)
    with kept_within_limits(folder.path, "trainings", notes) as lines:
        record = train(task, steps, options, loop_callbacks, folder)
        save_if_asked(record, due=False)  # during the last step, or with a stop
    if record.resumed_at and record.resumed_at == record.step:
        callbacks.on_step(record)  # no step has shown its history
    hand_over(folder, record, callbacks)
    record.notes += lines
    return record


def hand_over(
    folder: CheckpointFolder, record: TrainingRecord, callbacks: ProgressCallbacks
) -> None:
    """Let the caller keep or remove the last state, and put into the record where it is."""
    callbacks.on_trained(folder, record)
    record.origin = folder.origin(record.step)
    record.notes += kept_line(record)


def train_lora(
    opened: TrainingModel,
    task: LoRAObjective[Any, Any],
    folder: CheckpointFolder,
    callbacks: ProgressCallbacks,
    notes: list[str],
    export: Callable[[TrainedLoRA], LoRA],
    draw: Callable[[], Pictures],
    captions: Sequence[str],
    on_end: Callable[[], Pictures] = lambda: (),
    parts: Callable[[TrainedLoRA], Mapping[str, LoRA]] = lambda trained: {},
    saves: bool = False,
) -> TrainedLoRA:
    """Plan the memory, run the loop, and show samples on the way and at the end.

    Args:
        opened: the model with the LoRA's branches on it.
        task: the objective.
        folder: checkpoint folder.
        callbacks: the user's view and control of the training.
        notes: see `attempt`.
        export: returns the current LoRA with its file's metadata.
        draw: draws samples with the current LoRA, every `sample_every` steps.
        captions: what each of the samples is.
        on_end: measures after the last step, and returns the last samples; a cancel in it keeps
            the steps, as everywhere in the loop.
        parts: returns separate LoRAs by name, which are saved instead of the one of `export`.
        saves: whether to save the LoRA so far whenever samples are drawn.
    """
    settings, options = task.settings, task.settings.options
    plan = plan_memory(
        opened, settings.memory, options.batch, task.terms, task.largest, task.parameters
    )
    callbacks.on_status(str(plan))
    peak = PeakMemory(opened.device)
    others = opened.evaluations  # for anything but training

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
        others += opened.evaluations - before
        return pictures

    def so_far(record: TrainingRecord) -> TrainedLoRA:
        return TrainedLoRA(
            record=record,
            memory=(str(plan), str(peak)),
            low_memory=task.low_memory,
            evaluations=opened.evaluations - others,
            v_prediction=opened.v_prediction,
            flow=opened.flow,
            dtype=opened.dtype,
            checkpoint=source_name(opened.patcher),
        )

    def after_step(record: TrainingRecord) -> bool:
        attempt("reading the memory in use", peak.look, notes, None)
        every = options.sample_every
        if not every or record.step % every or record.step >= settings.steps:
            return False
        pictures = looked("drawing the sample pictures", draw)
        if pictures is None:
            opened.load()  # a VAE that failed may still be in the model's place
        elif pictures:
            callbacks.on_samples(record.step, pictures, captions)
        return saves

    def finish(record: TrainingRecord) -> None:
        if pictures := looked("evaluating the result", on_end):
            callbacks.on_samples(record.step, pictures, captions)
            callbacks.on_step(record)

    record = run_loop(
        task, settings.steps, options, folder, callbacks, notes,
        export=lambda record: export(so_far(record)), on_end=finish,
        parts=lambda record: parts(so_far(record)), after_step=after_step,
    )  # fmt: skip
    notes += opened.notes
    return so_far(record)
