"""ZipLoRA on a loaded MODEL, from two LoRAs to the merged one: the steps in their order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..branches import Branches
from ..checkpoint import CheckpointFolder
from ..closed_form import closed_form_evaluations
from ..coefficients import MergerCoefficients
from ..files.merged import merged_metadata
from ..keeping import Made, attempt, composed, forgiving
from ..lora import LoRA
from ..merge import MergedLoRA
from ..options import ZipSettings
from ..pairing import LoRAPair
from ..report import Retention, zip_report
from ..states import TEACHERS, State, retention
from ..trainable import Hooks, TrainingRecord, Watch
from ..training import train
from ..zip_metadata import zip_metadata
from ..zip_objective import ZipObjective
from . import conditioning as cond
from .free_memory import free_memory, memory_advice
from .memory import plan_memory
from .pairs import pair_on_model, refuse_other_than_sdxl, trained_modules
from .private_copy import refuse_patched
from .references import (
    Reference,
    draw_pictures,
    evaluations,
    noised_states,
    reference_latents,
)
from .save_now import save_so_far
from .solve import solve_on_model
from .targets import unet_targets
from .training_model import TrainingModel, training_model
from .zip_inputs import Prompt, merge_inputs, refuse_strength_zero

POOL = 32
"""Draws per teacher; their targets are computed once."""
_UNWATCHED = Watch()
_TRAINING, _HELD_OUT = 0, 1  # streams of a seed


@dataclass(frozen=True)
class ZipResult:
    """What came out.

    Args:
        loss: of every step; without steps, what the closed form left of the layers' outputs.
    """

    merged: MergedLoRA
    record: TrainingRecord
    report: str
    loss: list[float]


@memory_advice("Lower width, height or batch, or set memory to low")
def optimise(
    model: Any,
    pair: LoRAPair,
    prompts: Sequence[Prompt],
    settings: ZipSettings,
    checkpoints: Path,
    watch: Watch = _UNWATCHED,
) -> ZipResult:
    """Learn the merger coefficients of a pair on a MODEL; see `ZipSession`.

    ComfyUI runs nodes in inference mode, whose tensors autograd refuses: everything is made
    outside it.
    """
    with torch.inference_mode(False), torch.enable_grad():
        session = ZipSession(model, pair, prompts, settings)
        return session.run(checkpoints, watch)


class ZipSession:
    """One optimisation. Making it checks everything that needs no computing.

    Args:
        model: the person's ModelPatcher; it is not changed.
        pair: the two LoRAs and their strengths.
        prompts: content's and style's, latents optional; a third one asks for both, and holds the
            strength of the merge there.
        settings: the node's widgets.

    Raises:
        ZipLoRAError: anything about the inputs that a person can put right.
    """

    def __init__(
        self, model: Any, pair: LoRAPair, prompts: Sequence[Prompt], settings: ZipSettings
    ) -> None:
        self.notes: list[str] = []
        refuse_patched(model)
        refuse_other_than_sdxl(model.model)
        for prompt in prompts:
            cond.check(prompt.conditioning, f"{prompt.name}_conditioning", model.model)
        refuse_strength_zero(pair)
        self.model, self.pair, self.prompts, self.settings = model, pair, prompts, settings
        self.latents = [
            None
            if p.latent is None
            else reference_latents(model.model, p.latent, f"{p.name}_latent")
            for p in prompts
        ]
        self.pairs, self.text_encoder = pair_on_model(pair, model.model)
        self.trained = trained_modules(self.pairs, settings.layers, pair)
        self.branches = {name: Branches(p.factors) for name, p in self.pairs.items()}

    def run(self, checkpoints: Path, watch: Watch) -> ZipResult:
        """Learn the coefficients.

        Args:
            checkpoints: folder of all checkpoints; this run's is named by its inputs.
            watch: who follows it.
        """
        settings, options = self.settings, self.settings.options
        watch = forgiving(watch, self.notes)
        steps = settings.gradient_steps
        folder = self._checkpoint_folder(checkpoints) if steps else None
        targets = unet_targets(self.model.model)
        hooked = {targets[name]: branches for name, branches in self.branches.items()}
        with training_model(self.model, hooked, backward=steps > 0) as opened:
            states, held_out = self._states(opened, watch)
            before = self._attempt("measuring the direct merge", lambda: _measure(opened, held_out))
            task = self._objective(opened, states)
            solved = solve_on_model(opened, self.trained, states, settings, watch)
            task.coefficients.set(solved.columns)
            largest = max((s.x.shape[-2:] for c in states for s in c), key=lambda hw: hw.numel())
            plan = plan_memory(
                opened, settings.memory, options.batch, len(states), largest, task.parameters,
                frozen=sum(branches.nbytes for branches in self.branches.values()),
            )  # fmt: skip
            if steps:
                opened.on_evaluation = lambda done: None
                watch.on_status(str(plan))
            after: list[Retention | None] = []

            def closing() -> Retention | None:
                task.fold()
                return _measure(opened, held_out)

            def on_end(_record: TrainingRecord) -> None:
                after.append(self._attempt("measuring the merge", closing))

            def export(_record: TrainingRecord) -> LoRA:
                merged = self._merged(task)
                return LoRA("merge", merged.modules(), merged_metadata(merged))

            def on_step(record: TrainingRecord) -> None:
                if folder and watch.should_save():
                    run, step = folder.path.name, record.step
                    save_so_far(watch, self.notes, run, step, lambda: {"": export(record)})
                watch.on_step(record)

            hooks = Hooks(
                export, on_step, watch.should_stop, on_end, start_counts=bool(solved.columns),
                free_memory=free_memory,
            )  # fmt: skip
            record = train(task, steps, options, hooks, folder)
            if folder:
                watch.on_trained(folder, record)
            notes = [*solved.notes, *([str(plan)] if steps else [])]
            notes.append(f"UNet evaluations: {opened.evaluations} samples")
        measured = (before, after[0]) if before and after[0] else None
        merged = self._merged(task, measured)

        def write() -> str:
            return zip_report(merged, self.pair, record, settings, measured, notes)

        report = composed(write, self.notes)
        loss = record.history.get("loss", solved.errors)
        return ZipResult(merged, record, report, loss)

    def _attempt(self, what: str, make: Callable[[], Made]) -> Made | None:
        return attempt(what, make, self.notes, None)

    def _states(
        self, opened: TrainingModel, watch: Watch
    ) -> tuple[list[list[State]], list[list[State]]]:
        """Make the states to train on and the held-out ones, with their teachers' targets."""
        settings, options = self.settings, self.settings.options
        pool = min(settings.gradient_steps * options.batch * options.accumulation, POOL)
        draws = max(pool, settings.closed_form_states)
        references = [self._reference(opened, i) for i in range(len(self.prompts))]
        total = evaluations(references, draws, options.held_out_draws, targets=pool > 0)
        measured = 1 if settings.gradient_steps else 2  # the direct merge, and what is solved
        each = measured * options.held_out_draws
        each += closed_form_evaluations(settings.closed_form_states, settings.passes)
        total += len(references) * each
        opened.on_evaluation = lambda done: watch.on_prepare(done, total)
        states, references = draw_pictures(opened, references, self._size, draws, settings.seed)
        for i, drawn in enumerate(states):
            if not drawn:
                states[i] = noised_states(
                    opened, references[i], draws, settings.seed, _TRAINING, targets=pool > 0
                )

        def draw_held_out() -> list[list[State]]:
            draws, seed = options.held_out_draws, settings.seed
            return [noised_states(opened, r, draws, seed, _HELD_OUT) for r in references]

        return states, self._attempt("drawing what to measure on", draw_held_out) or [[]]

    def _reference(self, opened: TrainingModel, number: int) -> Reference:
        latents, prompt = self.latents[number], self.prompts[number].conditioning
        like = torch.zeros(1, *self._size, device=opened.device)
        if latents is not None:
            like = latents[:1].to(opened.device)
        positive = cond.prepare(opened.model, prompt, like)
        negative = cond.prepare(opened.model, cond.zeroed(prompt), like)
        return Reference(TEACHERS[number], positive, negative, latents)

    @property
    def _size(self) -> tuple[int, int, int]:
        channels = self.model.model.latent_format.latent_channels
        return channels, self.settings.height // 8, self.settings.width // 8

    def _objective(self, opened: TrainingModel, states: list[list[State]]) -> ZipObjective:
        widths = {name: self.branches[name].width for name in self.trained}
        return ZipObjective(
            model=opened,
            branches=self.branches,
            coefficients=MergerCoefficients(widths, opened.device),
            pairs=self.pairs,
            states=states,
            settings=self.settings,
            v_prediction=opened.v_prediction,
        )

    def _merged(
        self, task: ZipObjective, measured: tuple[Retention, Retention] | None = None
    ) -> MergedLoRA:
        """Copy the merge out as it is, with what its file says."""
        metadata = self._attempt(
            "describing the merge for the file",
            lambda: zip_metadata(self.pair, self.settings, measured, task.v_prediction),
        )
        return MergedLoRA(
            self.pairs, task.coefficients.detached(), self.text_encoder, metadata or {}
        )

    def _checkpoint_folder(self, root: Path) -> CheckpointFolder:
        pairs = {**self.pairs, **self.text_encoder}
        inputs = merge_inputs(self.model, pairs, self.prompts, self.latents, self.settings)
        return CheckpointFolder.of(inputs, root)


def _measure(opened: TrainingModel, held_out: list[list[State]]) -> Retention | None:
    """Compare the branches as they are now with the teachers; None without held-out states."""
    if not held_out[0]:
        return None
    return Retention(*(retention(opened.denoise, states, batch=2) for states in held_out))
