"""Training a slider on a loaded MODEL, from prompts or picture pairs to a LoRA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoint import CheckpointFolder, fingerprint
from ..errors import problem
from ..framing import Framing
from ..lora import LoRA, LoraFactors
from ..options import SliderSettings
from ..slider_report import slider_metadata, slider_report
from ..trainable import TrainingRecord, Watch
from .captions import Conditioner, encode_captions
from .conditioning import Conditioning
from .lora_training import refuse_no_steps, train_lora
from .new_lora import new_lora
from .pairs import refuse_other_than_sdxl
from .private_copy import refuse_patched
from .slider_effect import PICTURES, Effect, look_at_effect
from .slider_lessons import Lesson
from .targets import resolve_unet, unet_targets
from .training_model import TrainingModel, training_model

_WITHOUT_EFFECT = {"resume": "auto", "checkpoint_every": 0, "sample_every": 0}
"""Options that a result does not depend on, at one value."""
_UNWATCHED = Watch()


@dataclass(frozen=True)
class SliderResult:
    modules: Mapping[str, LoraFactors]
    metadata: Mapping[str, str]
    record: TrainingRecord
    report: str
    effect: Effect


@dataclass(frozen=True)
class SliderStudio:
    """What a slider's training takes from the canvas beside its lesson.

    Args:
        model, clip: of the checkpoint; neither is changed.
        vae: to see the effect by; None for rough colours.
        start: a slider to go on from; None to begin at the model itself.
    """

    model: Any
    clip: Any
    vae: Any | None = None
    start: LoRA | None = None


def train_slider(
    studio: SliderStudio,
    lesson: Lesson,
    settings: SliderSettings,
    checkpoints: Path,
    watch: Watch = _UNWATCHED,
) -> SliderResult:
    """Train a slider; see `SliderSession`. ComfyUI runs nodes in inference mode, whose tensors
    autograd refuses."""
    with torch.inference_mode(False), torch.enable_grad():
        return SliderSession(studio, lesson, settings).run(checkpoints, watch)


class SliderSession:
    """One training. Making it checks everything that needs no computing.

    Args:
        lesson: what the slider learns from.
        settings: the node's.

    Raises:
        ZipLoRAError: anything about the inputs that a person can put right.
    """

    def __init__(self, studio: SliderStudio, lesson: Lesson, settings: SliderSettings) -> None:
        refuse_no_steps(settings)
        refuse_patched(studio.model)
        refuse_other_than_sdxl(studio.model.model)
        self.studio, self.lesson, self.settings = studio, lesson, settings
        self.targets = unet_targets(studio.model.model)
        self.lora = new_lora(studio.model, self.targets, settings.layers, settings)
        self.frame = Framing.drawn(settings.resolution, settings.resolution)
        if studio.start is not None:
            self._start_from(studio.start)

    def run(self, root: Path, watch: Watch) -> SliderResult:
        """Train: prompts and pictures once, then the loop.

        Args:
            root: folder of all checkpoints.
            watch: who follows it.
        """
        studio, lesson, settings = self.studio, self.lesson, self.settings
        watch.on_status("encoding prompts and pictures")
        encoded = encode_captions(studio.clip, ["", *lesson.texts], studio.model.model)
        lesson.prepare()
        watch.on_status("loading a copy of the model")
        effects: list[Effect] = []
        with training_model(studio.model, self.lora.by_weight(self.targets)) as opened:
            conditioner = Conditioner(opened.model, encoded.__getitem__, True, opened.device)
            task = lesson.objective(opened, self.lora, conditioner)
            prompts = conditioner([(lesson.texts[0], self.frame), ("", self.frame)])
            folder = CheckpointFolder(root / self._hash(opened, encoded))

            def on_end() -> Sequence[Tensor]:
                watch.on_status("looking at the effect")
                effects.append(self._look(opened, prompts, PICTURES))
                return list(effects[0].pictures[0])

            trained = train_lora(
                opened, task, folder, watch,
                draw=lambda: list(self._look(opened, prompts, 1).pictures[0]), on_end=on_end,
            )  # fmt: skip
        [effect] = effects
        metadata = slider_metadata(trained, settings, lesson.described)
        report = slider_report(trained, settings, lesson.lines, effect.line())
        return SliderResult(trained.modules, metadata, trained.record, report, effect)

    def _look(self, opened: TrainingModel, prompts: Sequence[Conditioning], count: int) -> Effect:
        """Look at the effect on the first prompt, from some noises."""
        settings = self.settings
        return look_at_effect(
            opened, prompts, self.frame, settings.seed, count, self.studio.vae, settings.range,
            settings.start_percent,
        )  # fmt: skip

    def _start_from(self, start: LoRA) -> None:
        """Begin at an existing LoRA instead of at the model itself."""
        factors = resolve_unet(start, self.studio.model.model)
        known = {name: f for name, f in factors.items() if name in self.lora.branches}
        if not known:
            raise problem(
                "start_lora",
                found=f"{len(factors)} modules, none of them in layers={self.settings.layers}",
                expected="a LoRA of the layers that are trained",
                advice="Choose the layers that it was trained with.",
            )
        self.lora.parameters.start_from(known)

    def _hash(self, opened: TrainingModel, encoded: Mapping[str, Any]) -> str:
        """Name everything the result depends on, the patched base and the start included."""
        tensors = {**opened.fingerprint(), **self.lesson.seen, "start": self.lora.parameters.flat}
        for text, [[context, extras]] in encoded.items():
            tensors |= {f"prompt {text}": context, f"pooled {text}": extras["pooled_output"]}
        said = replace(self.settings, options=replace(self.settings.options, **_WITHOUT_EFFECT))
        facts = {"v": opened.v_prediction, "kind": type(self.settings).__name__}
        return fingerprint(asdict(said) | facts, tensors)
