"""Training a slider on a loaded MODEL, from prompts or picture pairs to a LoRA."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ..branches import Branches
from ..checkpoint import CheckpointFolder, fingerprint
from ..errors import problem
from ..framing import Framing
from ..lora import LoRA, LoraFactors
from ..lora_objective import LoRAObjective
from ..options import SliderSettings
from ..slider_report import TrainedSlider, slider_metadata, slider_report
from ..trainable import Hooks, TrainingRecord, Watch
from ..training import train
from .captions import Conditioner, encode_captions
from .memory import PeakMemory, plan_memory
from .new_lora import new_lora
from .pairs import refuse_other_than_sdxl
from .private_copy import refuse_patched, source_name
from .slider_effect import Effect, look_at_effect
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
        with training_model(studio.model, self._by_weight()) as opened:
            conditioner = Conditioner(opened.model, encoded.__getitem__, True, opened.device)
            task = lesson.objective(opened, self.lora, conditioner)
            folder = CheckpointFolder(root / self._hash(opened, encoded))
            record, effect, memory = self._train(opened, task, conditioner, folder, watch)
        if not record.asked_to_stop:
            folder.remove()
        trained = TrainedSlider(
            modules=task.factors(),
            record=record,
            effect=effect.line(),
            evaluations=opened.evaluations,
            memory=memory,
            v_prediction=opened.v_prediction,
            checkpoint=source_name(studio.model),
        )
        metadata = slider_metadata(trained, settings, lesson.described)
        report = slider_report(trained, settings, lesson.lines)
        return SliderResult(trained.modules, metadata, record, report, effect)

    def _train(
        self,
        opened: TrainingModel,
        task: LoRAObjective,
        conditioner: Conditioner,
        folder: CheckpointFolder,
        watch: Watch,
    ) -> tuple[TrainingRecord, Effect, tuple[str, str]]:
        """Run the loop, and look at the effect in between and at the end."""
        settings, options = self.settings, self.settings.options
        plan = plan_memory(
            opened, settings.memory, options.batch, self.lesson.terms,
            self.lesson.largest(self.frame), task.parameters,
        )  # fmt: skip
        watch.on_status(str(plan))
        peak = PeakMemory(opened.device)
        prompt, nothing = conditioner([(self.lesson.texts[0], self.frame), ("", self.frame)])

        def look() -> Effect:
            with torch.no_grad():
                task.fold()
            return look_at_effect(
                opened, prompt, nothing, self.frame, settings.seed, self.studio.vae,
                settings.range, settings.start_percent,
            )  # fmt: skip

        def on_step(record: TrainingRecord) -> None:
            peak.look()
            every = options.sample_every
            if every and record.step % every == 0 and record.step < settings.steps:
                watch.on_samples(record.step, list(look().pictures[0]))
            watch.on_step(record)

        effects: list[Effect] = []

        def on_end() -> None:
            watch.on_status("looking at the effect")
            effects.append(look())

        hooks = Hooks(task.factors, on_step, watch.should_stop, on_end)
        record = train(task, settings.steps, options, hooks, folder)
        watch.on_samples(record.step, list(effects[0].pictures[0]))
        watch.on_step(record)
        return record, effects[0], (str(plan), str(peak))

    def _by_weight(self) -> dict[str, Branches]:
        return {self.targets[name]: branches for name, branches in self.lora.branches.items()}

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
