"""ZipLoRA on a loaded MODEL, from two LoRAs to their merge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...files.merge_file import merged_metadata
from ...lora.coefficients import MergerCoefficients
from ...lora.comparison import compare, sameness_warnings
from ...lora.factors import LoRA
from ...lora.merged import MergedLoRA
from ...lora.pair import LoRAPair
from ...training.branches import Branches
from ...training.checkpoint import CheckpointFolder
from ...training.interface import NO_CALLBACKS, ProgressCallbacks, TrainingRecord
from ...training.limits import kept_within_limits
from ...training.noisy_samples import NoisySample
from ...training.ownership import owned
from ...training.protection import Made, attempt, composed, forgiving
from ...ziplora.closed_form import ClosedForm
from ...ziplora.metadata import ziplora_metadata
from ...ziplora.objective import ZipLoRAObjective
from ...ziplora.options import ZipLoRASettings
from ...ziplora.report import Retention, ziplora_report
from ..data.references import reference_latents
from ..model import conditioning as cond
from ..model.bases import refuse_refiner
from ..model.family import family_of
from ..model.memory import plan_memory
from ..model.pair_on_model import pair_on_model, trained_modules
from ..model.private_copy import refuse_patched
from ..model.targets import unet_targets
from ..model.training_model import TrainingModel, training_model
from .closed_form_on_model import solve_on_model
from .held_out import HeldOut
from .kept_solution import solved_once
from .run import hand_over, run_loop, training_mode
from .ziplora_inputs import Prompt, merge_inputs, refuse_strength_zero
from .ziplora_samples import SampleDrawing


@dataclass(frozen=True)
class ZipLoRAResult:
    """The learned merge.

    Args:
        merged: the merge.
        record: the loop's record.
        report: text of the report.
        loss: loss of every step; without steps, the error of the closed form by pass as a share of
            the direct merge's, see `ClosedForm`.
    """

    merged: MergedLoRA
    record: TrainingRecord
    report: str
    loss: list[float]


@training_mode("Lower width, height or batch, or set memory to low")
def train_ziplora(
    model: Any,
    pair: LoRAPair,
    prompts: Sequence[Prompt],
    settings: ZipLoRASettings,
    checkpoints: Path,
    callbacks: ProgressCallbacks = NO_CALLBACKS,
) -> ZipLoRAResult:
    """Learn the merger coefficients of a pair on a MODEL; see `ZipLoRASession`.

    Args:
        model, pair, prompts, settings: see `ZipLoRASession`.
        checkpoints: folder of all checkpoints.
        callbacks: the user's view and control of the training.

    Raises:
        ZipLoRAError: an input is invalid, the training fails, or memory runs out.
    """
    return ZipLoRASession(model, pair, prompts, settings).run(checkpoints, callbacks)


class ZipLoRASession:
    """One optimisation. The constructor checks all inputs that can be checked without computing.

    Args:
        model: the user's ModelPatcher, which is not changed.
        pair: the two LoRAs and their strengths.
        prompts: the content and the style prompt, latents optional; further ones are joint
            prompts, which preserve both LoRAs there.
        settings: the node's settings.

    Raises:
        ZipLoRAError: an input is invalid, in a way that the user can fix.
    """

    def __init__(
        self, model: Any, pair: LoRAPair, prompts: Sequence[Prompt], settings: ZipLoRASettings
    ) -> None:
        self.notes: list[str] = []
        refuse_patched(model)
        refuse_refiner(model.model)
        for prompt in prompts:
            cond.check(prompt.conditioning, prompt.input, model.model)
        refuse_strength_zero(pair, settings)
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

    def run(self, checkpoints: Path, callbacks: ProgressCallbacks) -> ZipLoRAResult:
        """Learn the coefficients.

        Args:
            checkpoints: folder of all checkpoints; this run's is named by its inputs.
            callbacks: the user's view and control of the training.
        """
        settings, options = self.settings, self.settings.options
        callbacks = forgiving(callbacks, self.notes)
        steps = settings.gradient_steps
        folder = self._checkpoint_folder(checkpoints)
        targets = unet_targets(self.model.model)
        hooked = {targets[name]: branches for name, branches in self.branches.items()}
        same = "".join(f"WARNING: {text} " for text in sameness_warnings(compare(self.pairs)))
        if same:  # in time to stop
            callbacks.on_status(same)
        held = owned(folder and folder.path)
        with held, training_model(self.model, hooked, backward=steps > 0) as opened:
            drawing = SampleDrawing(opened, self.prompts, self.latents, settings)
            samples, held_out = drawing.draw(callbacks, self._attempt)
            kept = HeldOut(opened.denoise, held_out, self._attempt)
            task = self._objective(opened, samples)

            def solve() -> ClosedForm:
                return solve_on_model(
                    opened, self.trained, samples, settings, callbacks, kept.share,
                    joint_prompts=len(self.prompts) - 2,
                )  # fmt: skip

            if not steps:
                callbacks.on_start(folder, TrainingRecord(), False)
            solved = solved_once(
                None if steps else folder, task.coefficients, settings, callbacks, self.notes, solve
            )
            largest = max((s.x.shape[-2:] for c in samples for s in c), key=lambda hw: hw.numel())
            plan = plan_memory(
                opened, settings.memory, options.batch, len(samples), largest, task.parameters,
                frozen=sum(branches.nbytes for branches in self.branches.values()),
            )  # fmt: skip
            if steps:
                opened.on_evaluation = lambda done: None
                callbacks.on_status(f"{same}{plan}")

            def on_end(_record: TrainingRecord) -> None:
                if steps or not kept.was_tried:  # the last pass was measured
                    task.fold()
                    kept.measure()

            def export(_record: TrainingRecord) -> LoRA:
                merged = self._merged(task)
                return LoRA("merge", merged.modules(), merged_metadata(merged))

            record = run_loop(
                task, steps, options, folder if steps else None, callbacks, self.notes, export,
                on_end, start_counts=bool(solved.columns),
            )  # fmt: skip
            if not steps:
                with kept_within_limits(folder.path, "trainings", self.notes) as lines:
                    hand_over(folder, record, callbacks)
                record.notes += lines
            notes = [*solved.notes, *([str(plan)] if steps else [])]
            notes += [f"UNet evaluations: {opened.evaluations} samples", *opened.notes]
        measured = kept.retention()
        merged = replace(self._merged(task, measured), origin=record.origin)

        def write() -> str:
            return ziplora_report(
                merged, self.pair, record, settings, measured, notes, len(self.prompts) > 2
            )

        report = composed(write, self.notes)
        loss = record.history.get("loss", solved.errors or [1.0, solved.error])
        return ZipLoRAResult(merged, record, report, loss)

    def _attempt(self, what: str, make: Callable[[], Made]) -> Made | None:
        return attempt(what, make, self.notes, None)

    def _objective(
        self, opened: TrainingModel, samples: list[list[NoisySample]]
    ) -> ZipLoRAObjective:
        widths = {name: self.branches[name].width for name in self.trained}
        return ZipLoRAObjective(
            model=opened,
            branches=self.branches,
            coefficients=MergerCoefficients(widths, opened.device),
            pairs=self.pairs,
            samples=samples,
            settings=self.settings,
            v_prediction=opened.v_prediction,
            flow=opened.flow,
        )

    def _merged(
        self, task: ZipLoRAObjective, measured: tuple[Retention, Retention] | None = None
    ) -> MergedLoRA:
        """Return a copy of the current merge, with its file's metadata."""
        metadata = self._attempt(
            "describing the merge for the file",
            lambda: {
                **family_of(self.model.model).metadata,
                **ziplora_metadata(
                    self.pair, self.settings, measured, task.v_prediction, task.flow
                ),
            },
        )
        return MergedLoRA(
            self.pairs, task.coefficients.detached(), self.text_encoder, metadata or {}
        )

    def _checkpoint_folder(self, root: Path) -> CheckpointFolder:
        pairs = {**self.pairs, **self.text_encoder}
        inputs = merge_inputs(self.model, pairs, self.prompts, self.latents, self.settings)
        title = f"{self.pair.content.name} + {self.pair.style.name}"
        return CheckpointFolder.of(inputs, root, "ZipLoRA", title)
