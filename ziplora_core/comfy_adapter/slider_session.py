"""Training a slider on a loaded MODEL, from prompts or picture pairs to a LoRA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..checkpoint import CheckpointFolder
from ..errors import problem
from ..framing import Framing
from ..keeping import attempt, composed, forgiving
from ..limits import refuse_below_least
from ..lora import LoRA, LoraFactors
from ..resume_key import Inputs, counted, digest
from ..slider_report import slider_metadata, slider_report
from ..trainable import TrainedLoRA, TrainingRecord, Watch
from .captions import Conditioner, encode_captions
from .conditioning import Conditioning
from .free_memory import memory_advice
from .loaded_inputs import of_clip, of_model
from .lora_training import train_lora
from .new_lora import new_lora
from .pairs import refuse_other_than_sdxl
from .pictures import refuse_other_vae
from .private_copy import refuse_patched
from .slider_effect import PICTURES, Effect, look_at_effect
from .slider_lessons import Lesson, SliderStudio
from .targets import resolve_some_unet, unet_targets
from .training_model import TrainingModel, training_model

_UNWATCHED = Watch()


@dataclass(frozen=True)
class SliderResult:
    """What came out; `effect` is None where it could not be looked at."""

    modules: Mapping[str, LoraFactors]
    metadata: Mapping[str, str]
    record: TrainingRecord
    report: str
    effect: Effect | None


@memory_advice("Lower the resolution or batch, or set memory to low")
def train_slider(
    studio: SliderStudio, lesson: Lesson, checkpoints: Path, watch: Watch = _UNWATCHED
) -> SliderResult:
    """Train a slider; see `SliderSession`. ComfyUI runs nodes in inference mode, whose tensors
    autograd refuses."""
    with torch.inference_mode(False), torch.enable_grad():
        return SliderSession(studio, lesson).run(checkpoints, watch)


class SliderSession:
    """One training. Making it checks everything that needs no computing.

    Args:
        lesson: what the slider learns from, with the node's settings.

    Raises:
        ZipLoRAError: anything about the inputs that a person can put right.
    """

    def __init__(self, studio: SliderStudio, lesson: Lesson) -> None:
        settings = lesson.settings
        refuse_patched(studio.model)
        refuse_other_than_sdxl(studio.model.model)
        if studio.vae is not None:
            refuse_other_vae(studio.vae, studio.model.model)
        refuse_below_least(settings)
        self.studio, self.lesson, self.settings = studio, lesson, settings
        self.notes: list[str] = []
        self.targets = unet_targets(studio.model.model)
        self.lora = new_lora(studio.model, self.targets, settings.layers, settings)
        self.frame = Framing.drawn(settings.resolution, settings.resolution)
        self.shown = [*settings.options.samples, lesson.texts[0]][0]
        self.started = [] if studio.start is None else [self._start_from(studio.start)]

    def run(self, root: Path, watch: Watch) -> SliderResult:
        """Train: prompts and pictures once, then the loop.

        Args:
            root: folder of all checkpoints.
            watch: who follows it.
        """
        studio, lesson = self.studio, self.lesson
        watch = forgiving(watch, self.notes)
        folder = CheckpointFolder.of(self._inputs(), root)
        watch.on_status("encoding prompts and pictures")
        encoded = encode_captions(studio.clip, ["", self.shown, *lesson.texts], studio.model.model)
        lesson.prepare(studio)
        watch.on_status("loading a copy of the model")
        effects: list[Effect] = []
        with training_model(studio.model, self.lora.by_weight(self.targets)) as opened:
            conditioner = Conditioner(opened.model, encoded.__getitem__, True, opened.device)
            task = lesson.objective(opened, self.lora, conditioner)
            prompts = conditioner([(text, self.frame) for text in (self.shown, "")])

            def on_end() -> Sequence[Tensor]:
                watch.on_status("looking at the effect")
                effects.append(self._look(opened, prompts, PICTURES))
                return list(effects[0].pictures[0])

            def export(trained: TrainedLoRA) -> LoRA:
                return LoRA("slider", task.factors(), self._metadata(trained))

            trained = train_lora(
                opened, task, folder, watch, self.notes, export,
                draw=lambda: list(self._look(opened, prompts, 1).pictures[0]), on_end=on_end,
            )  # fmt: skip
            slider = export(trained)
        effect = effects[0] if effects else None
        report = composed(lambda: self._report(trained, slider, effect), self.notes)
        return SliderResult(slider.modules, slider.metadata, trained.record, report, effect)

    def _report(self, trained: TrainedLoRA, slider: LoRA, effect: Effect | None) -> str:
        about = [*self.lesson.lines, *self.started]
        seen = [] if effect is None else [effect.line()]
        return slider_report(trained, slider.modules, self.settings, about, seen)

    def _metadata(self, trained: TrainedLoRA) -> Mapping[str, str]:
        """What the file says of its training."""
        start = {} if self.studio.start is None else {"start": self.studio.start.name}
        return attempt(
            "describing the training for the file",
            lambda: slider_metadata(trained, self.settings, {**self.lesson.described, **start}),
            self.notes, {},
        )  # fmt: skip

    def _look(self, opened: TrainingModel, prompts: Sequence[Conditioning], count: int) -> Effect:
        """Look at the effect on the prompt that is shown, from some noises."""
        vae, settings = self.studio.vae, self.settings
        return look_at_effect(opened, prompts, self.frame, count, vae, self.shown, settings)

    def _start_from(self, start: LoRA) -> str:
        """Begin at an existing LoRA instead of at the model itself; says what of it was taken."""
        factors = resolve_some_unet(start, self.studio.model.model)
        known = {name: f for name, f in factors.items() if name in self.lora.branches}
        if not known:
            raise problem(
                "start_lora",
                found=f"{len(factors)} modules, none of them in layers={self.settings.layers}",
                expected="a LoRA of the layers that are trained",
                advice="Choose the layers that it was trained with.",
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
        """Name everything the result depends on, the start included."""
        studio, start = self.studio, {}
        if studio.start is not None:
            for name, factors in studio.start.modules.items():
                start[f"{name} down"], start[f"{name} up"] = (
                    factors.down,
                    factors.scale * factors.up,
                )
        said = Inputs({**counted(self.settings), "start": digest(start) if start else ""})
        return of_model(studio.model) | of_clip(studio.clip) | self.lesson.inputs(studio) | said
