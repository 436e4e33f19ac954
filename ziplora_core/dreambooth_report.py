"""What a person reads after a DreamBooth training: plain lines, warnings first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .dreambooth import Example
from .lora import LoraFactors, is_unet
from .options import DreamBoothSettings
from .report import loss_line, steps_line
from .trainable import TrainedLoRA

_LARGE_SCALE = 2.0
"""alpha / rank above which a LoRA is likely to burn."""


@dataclass(frozen=True)
class Trained(TrainedLoRA):
    """What came out of a training, and what it was made from.

    Args:
        examples, class_examples: what was shown; `classes_given`: not drawn here.
        loss: on fixed draws, before and after, None when it was not measured.
    """

    examples: Sequence[Example]
    class_examples: Sequence[Example]
    classes_given: bool
    loss: tuple[float, float] | None = None


def measured(before: float | None, after: Sequence[float | None]) -> tuple[float, float] | None:
    """Put the losses before and after together; None unless there are both."""
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
    """Say what the class was rehearsed by."""
    source = "given" if trained.classes_given else "drawn by this model"
    return f"prior preservation: {len(trained.class_examples)} class pictures, {source}"


def run_lines(trained: Trained, steps: int) -> list[str]:
    """Say how the run went: steps, losses, what it took."""
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
        warnings.append("nothing was learned: it was stopped before the first step")
    elif not any(f.up.any() for f in modules.values()):
        warnings.append("nothing was learned: learning_rate is 0")
    if (scale := settings.alpha / settings.rank) > _LARGE_SCALE:
        warnings.append(
            f"alpha {settings.alpha:g} at rank {settings.rank} counts the LoRA {scale:g} times: "
            "alpha is usually the rank, or half of it"
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
        lines.append(f"{narrow} modules are narrower than rank {settings.rank} and got their width")
    return lines


def pictures_line(examples: Sequence[Example]) -> str:
    """Say how many pictures there are, at which sizes, and how many of them were too small."""
    count = "1 picture" if len(examples) == 1 else f"{len(examples)} pictures"
    return f"{count}: {_sizes(examples)}{_enlarged(examples)}"


def _enlarged(examples: Sequence[Example]) -> str:
    frames = [example.views[0].frame for example in examples]
    count = sum(frame.resized[0] > frame.original[0] for frame in frames)
    return f" ({count} of them enlarged)" if count else ""


def _sizes(examples: Sequence[Example]) -> str:
    targets = Counter(example.views[0].frame.target for example in examples)
    return ", ".join(f"{n} of {width} × {height}" for (height, width), n in targets.items())
