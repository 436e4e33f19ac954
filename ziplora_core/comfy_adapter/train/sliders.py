"""Training a slider on a loaded MODEL, from prompts or picture pairs to a LoRA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ...errors import problem
from ...lora.factors import LoRA, LoraFactors
from ...sliders.metadata import slider_metadata
from ...sliders.report import slider_report
from ...training.checkpoint import CheckpointFolder
from ...training.framing import Framing
from ...training.interface import NO_CALLBACKS, ProgressCallbacks, TrainedLoRA, TrainingRecord
from ...training.ownership import owned
from ...training.protection import attempt, composed, forgiving
from ...training.resume_key import Inputs, digest, settings_that_count
from ...training.validation import refuse_below_minimum
from ..data.caption_encoding import Conditioner, encode_captions
from ..model.conditioning import Conditioning
from ..model.family import family_of
from ..model.identity import identify_clip, identify_model
from ..model.targets import resolve_some_unet, unet_targets
from ..model.training_model import TrainingModel, training_model
from .new_lora import new_lora
from .run import refuse_untrainable, train_lora, training_mode
from .slider_effect import PICTURES, Effect, look_at_effect, scales
from .slider_tasks import SliderInputs, SliderTask


@dataclass(frozen=True)
class SliderResult:
    """The trained slider; `effect` is None if drawing it failed."""

    modules: Mapping[str, LoraFactors]
    metadata: Mapping[str, str]
    record: TrainingRecord
    report: str
    effect: Effect | None


@training_mode("Lower the resolution or batch, or set memory to low")
def train_slider(
    inputs: SliderInputs,
    task: SliderTask,
    checkpoints: Path,
    callbacks: ProgressCallbacks = NO_CALLBACKS,
) -> SliderResult:
    """Train a slider; see `SliderSession`.

    Args:
        inputs: the node's inputs.
        task: the training data, with the node's settings.
        checkpoints: folder of all checkpoints.
        callbacks: the user's view and control of the training.

    Raises:
        ZipLoRAError: an input is invalid, the training fails, or memory runs out.
    """
    return SliderSession(inputs, task).run(checkpoints, callbacks)


class SliderSession:
    """One training. The constructor checks all inputs that can be checked without computing.

    Args:
        inputs: the node's inputs.
        task: the training data, with the node's settings.

    Raises:
        ZipLoRAError: an input is invalid, in a way that the user can fix.
    """

    def __init__(self, inputs: SliderInputs, task: SliderTask) -> None:
        settings = task.settings
        refuse_untrainable(inputs.model, inputs.vae, inputs.clip, only_sdxl=False)
        refuse_below_minimum(settings)
        self.inputs, self.task, self.settings = inputs, task, settings
        self.notes: list[str] = []
        self.targets = unet_targets(inputs.model.model)
        self.lora = new_lora(inputs.model, self.targets, settings.layers, settings)
        self.frame = Framing.drawn(settings.resolution, settings.resolution)
        self.shown = [*settings.options.samples, task.texts[0]][0]
        self.started = [] if inputs.start is None else [self._start_from(inputs.start)]

    def run(self, root: Path, callbacks: ProgressCallbacks) -> SliderResult:
        """Encode prompts and pictures once, then run the training loop.

        Args:
            root: folder of all checkpoints.
            callbacks: the user's view and control of the training.
        """
        inputs, task = self.inputs, self.task
        callbacks = forgiving(callbacks, self.notes)
        folder = CheckpointFolder.of(self._inputs(), root, "Concept Slider", task.lines[0])
        callbacks.on_status("encoding prompts and pictures")
        encoded = encode_captions(inputs.clip, ["", self.shown, *task.texts], inputs.model.model)
        task.prepare(inputs)
        callbacks.on_status("loading a copy of the model")
        effects: list[Effect] = []
        hooked = self.lora.by_weight(self.targets)
        with owned(folder.path), training_model(inputs.model, hooked) as opened:
            conditioner = Conditioner(opened.model, encoded.__getitem__, True, opened.device)
            objective = task.objective(opened, self.lora, conditioner)
            prompts = conditioner([(text, self.frame) for text in (self.shown, "")])

            def on_end() -> Sequence[Tensor]:
                callbacks.on_status("measuring the effect")
                count = PICTURES if self.settings.options.held_out_draws else 1
                effects.append(self._look(opened, prompts, count))
                return list(effects[0].pictures[0])

            def export(trained: TrainedLoRA) -> LoRA:
                return LoRA("slider", objective.factors(), self._metadata(trained))

            trained = train_lora(
                opened, objective, folder, callbacks, self.notes, export,
                draw=lambda: list(self._look(opened, prompts, 1).pictures[0]),
                captions=scales(self.settings.range), on_end=on_end,
            )  # fmt: skip
            slider = export(trained)
        effect = effects[0] if effects else None
        report = composed(lambda: self._report(trained, slider, effect), self.notes)
        return SliderResult(slider.modules, slider.metadata, trained.record, report, effect)

    def _report(self, trained: TrainedLoRA, slider: LoRA, effect: Effect | None) -> str:
        about = [*self.task.lines, *self.started]
        seen = [] if effect is None else [effect.line()]
        return slider_report(trained, slider.modules, self.settings, about, seen)

    def _metadata(self, trained: TrainedLoRA) -> Mapping[str, str]:
        """Return the metadata of the slider's file."""
        start = {} if self.inputs.start is None else {"start": self.inputs.start.name}
        family = family_of(self.inputs.model.model)
        return attempt(
            "describing the training for the file",
            lambda: {
                **family.metadata,
                **slider_metadata(trained, self.settings, {**self.task.described, **start}),
            },
            self.notes, {},
        )  # fmt: skip

    def _look(self, opened: TrainingModel, prompts: Sequence[Conditioning], count: int) -> Effect:
        """Draw the effect on the shown prompt, from `count` noises."""
        vae, settings = self.inputs.vae, self.settings
        return look_at_effect(opened, prompts, self.frame, count, vae, self.shown, settings)

    def _start_from(self, start: LoRA) -> str:
        """Start from an existing LoRA; return the report's line on the modules used."""
        factors = resolve_some_unet(start, self.inputs.model.model)
        known = {name: f for name, f in factors.items() if name in self.lora.branches}
        if not known:
            raise problem(
                "start_lora",
                found=f"{len(factors)} modules, none of them in layers={self.settings.layers}",
                expected="a LoRA of the layers that are trained",
                advice="Choose the layers that the LoRA was trained with.",
            )
        self.lora.parameters.start_from(known)
        rank = max(f.rank for f in known.values())
        line = (
            f"starts from {start.name}: {len(known)} of {len(factors)} modules, rank {rank} → "
            f"{self.settings.rank}"
        )
        text = len(start.text_encoder())
        return f"{line}, {text} text-encoder modules not used" if text else line

    def _inputs(self) -> Inputs:
        """Return all inputs that the result depends on, including the LoRA to start from."""
        inputs, start = self.inputs, {}
        if inputs.start is not None:
            for name, factors in inputs.start.modules.items():
                start[f"{name} down"], start[f"{name} up"] = (
                    factors.down,
                    factors.scale * factors.up,
                )
        said = Inputs(
            {**settings_that_count(self.settings), "start": digest(start) if start else ""}
        )
        return (
            identify_model(inputs.model)
            | identify_clip(inputs.clip)
            | self.task.inputs(inputs)
            | said
        )
