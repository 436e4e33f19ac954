"""The report of Train DreamBooth LoRA, and report lines shared by trainings on pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..lora.factors import LoraFactors, is_unet
from ..training.interface import TrainedLoRA
from ..training.report import loss_line, steps_line
from .objective import TrainingExample
from .options import DreamBoothSettings

_LARGE_SCALE = 2.0
"""alpha / rank above which a LoRA is likely to give burnt pictures."""


@dataclass(frozen=True)
class Trained(TrainedLoRA):
    """The result of a training on pictures.

    Args:
        examples, class_examples: the training pictures and the class pictures.
        class_images_connected: whether class pictures were connected, not drawn by the model.
        loss: the loss on fixed draws before and after; None when it was not measured.
    """

    examples: Sequence[TrainingExample]
    class_examples: Sequence[TrainingExample]
    class_images_connected: bool
    loss: tuple[float, float] | None = None


def measured(before: float | None, after: Sequence[float | None]) -> tuple[float, float] | None:
    """Pair the losses before and after; None unless there are both."""
    last = after[-1] if after else None
    return None if before is None or last is None else (before, last)


def dreambooth_report(
    trained: Trained, modules: Mapping[str, LoraFactors], settings: DreamBoothSettings
) -> str:
    """Compose TrainDreamBoothLoRA's report."""
    lines = [f"WARNING: {text}" for text in _warnings(trained, modules, settings)]
    lines += [
        f"LoRA of {pictures_line(trained.examples)}",
        *_module_lines(modules, settings),
    ]
    if trained.class_examples:
        lines.append(prior_line(trained))
    return "\n".join([*lines, *run_lines(trained, settings.steps)])


def prior_line(trained: Trained) -> str:
    """Describe the class pictures of prior preservation."""
    source = "given" if trained.class_images_connected else "drawn by this model"
    return f"prior preservation: {len(trained.class_examples)} class pictures, {source}"


def run_lines(trained: Trained, steps: int) -> list[str]:
    """Describe the run: steps, losses, UNet evaluations and memory."""
    record = trained.record
    lines = [steps_line(record, steps)]
    lines += loss_line(record.history, [term for term in record.history if term != "loss"])
    if trained.loss is not None:
        before, after = trained.loss
        lines.append(
            f"loss on fixed noise, without → with the LoRA: {before:.5f} → {after:.5f} "
            f"(× {after / before:.3f})"
        )
    lines.append(f"UNet evaluations: {trained.evaluations} samples")
    return [*lines, *trained.memory, *record.notes]


def _warnings(
    trained: Trained, modules: Mapping[str, LoraFactors], settings: DreamBoothSettings
) -> list[str]:
    record = trained.record
    warnings = [record.stopped] if record.failed and record.stopped else []
    if not record.step:
        warnings.append("nothing was learned: training was stopped before the first step")
    elif not any(f.up.any() for f in modules.values()):
        warnings.append("nothing was learned: learning_rate is 0")
    if (scale := settings.alpha / settings.rank) > _LARGE_SCALE:
        warnings.append(
            f"alpha {settings.alpha:g} at rank {settings.rank} scales the LoRA by {scale:g}: "
            "alpha is usually the rank, or half of it. It is an advanced input: Show Advanced in "
            "the node's menu"
        )
    return warnings


def _module_lines(modules: Mapping[str, LoraFactors], settings: DreamBoothSettings) -> list[str]:
    unet = sum(is_unet(name) for name in modules)
    parameters = sum(f.down.numel() + f.up.numel() for f in modules.values())
    text = f" and {len(modules) - unet} text-encoder" if len(modules) > unet else ""
    narrow = sum(f.rank < settings.rank for f in modules.values())
    lines = [
        f"{unet} UNet{text} modules, rank {settings.rank}, alpha {settings.alpha:g}, "
        f"{parameters:,} parameters"
    ]
    if narrow:
        lines.append(
            f"{narrow} modules are narrower than rank {settings.rank}: their rank is their width"
        )
    return lines


def pictures_line(examples: Sequence[TrainingExample]) -> str:
    """Describe the pictures: their number, sizes, and how many had to be enlarged."""
    count = "1 picture" if len(examples) == 1 else f"{len(examples)} pictures"
    return f"{count}: {_sizes(examples)}{_enlarged(examples)}"


def _enlarged(examples: Sequence[TrainingExample]) -> str:
    frames = [example.views[0].frame for example in examples]
    count = sum(frame.resized[0] > frame.original[0] for frame in frames)
    return f" ({count} of them enlarged)" if count else ""


def _sizes(examples: Sequence[TrainingExample]) -> str:
    targets = Counter(example.views[0].frame.target for example in examples)
    return ", ".join(f"{n} of {width} × {height}" for (height, width), n in targets.items())
