"""The report of UnZipLoRA Train."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..dreambooth.report import Trained, pictures_line, prior_line, run_lines
from ..lora.coefficients import CONTENT, STYLE
from ..training.report import compose
from .feature_masks import OWNERS, FeatureMasks
from .objective import CONCEPTS
from .options import UnZipLoRASettings
from .prompts import equal_prompt_warnings

_NOTHING = 0.1
"""A merger below which a feature of a LoRA is nearly switched off in the merge."""
_MANY = 0.5
"""Share of the features of both LoRAs with both switched off above which the report warns."""


@dataclass(frozen=True)
class UnZipLoRATrained:
    """The result of a training apart from the LoRAs, on the CPU.

    Args:
        trained: the result common to all trainings on pictures.
        masks: the feature masks.
        mergers: the mergers m, in the layout of the feature masks.
    """

    trained: Trained
    masks: FeatureMasks
    mergers: Tensor


def unziplora_report(unzipped: UnZipLoRATrained, settings: UnZipLoRASettings) -> str:
    """Compose UnZipLoRATrain's report, warnings first."""
    trained = unzipped.trained
    lines = [f"WARNING: {text}" for text in _warnings(unzipped, settings)]
    layers = len(unzipped.masks.heights)
    lines += [
        f"UnZipLoRA of {pictures_line(trained.examples)}",
        f"content and style LoRA of rank {settings.rank} each, {layers} layers "
        f"({settings.layers}), {len(unzipped.mergers):,} mergers",
        _alone_line(settings),
        *_mask_lines(unzipped.masks, settings),
        *_merger_lines(unzipped),
    ]
    if trained.class_examples:
        lines.append(prior_line(trained))
    elif settings.class_prompt.strip():
        why = "class_prompt, but no class_images"
        if settings.prior_weight == 0:
            why = "prior_weight is 0"
        lines.append(f"no prior preservation: {why}")
    return compose([*lines, *run_lines(trained, settings.steps)])


def _warnings(unzipped: UnZipLoRATrained, settings: UnZipLoRASettings) -> list[str]:
    record = unzipped.trained.record
    warnings = [record.stopped] if record.failed and record.stopped else []
    if not record.step:
        warnings.append("nothing was learned: training was stopped before the first step")
    warnings += equal_prompt_warnings(settings)
    warnings += [
        f"{name}_learning_rate is 0: the {name} LoRA is the random noise it started from"
        for name, rate in zip(CONCEPTS, settings.learning_rates[:2], strict=True)
        if rate == 0
    ]
    if (gone := _gone(unzipped)) > _MANY:
        warnings.append(
            f"on {gone:.0%} of the features that both LoRAs have, both mergers fell below "
            f"{_NOTHING:g}: neither LoRA contributes there to the merge. Lower "
            "weight_learning_rate or similarity_weight, or choose mergers=disjoint."
        )
    share = settings.column_ratio * settings.sample_times
    if settings.column_separation and share > 0.5:
        warnings.append(
            f"column_ratio × sample_times is {share:.0%} of the features for each LoRA: in blocks "
            "that neither owns it gets at most half, because the two share no feature there"
        )
    return warnings


def _alone_line(settings: UnZipLoRASettings) -> str:
    if not settings.alone_share:
        return "both LoRAs learn every sample, as published (alone_share is 0)"
    each = f"{50 * settings.alone_share:.3g}%"
    return f"content alone learns {each} of the samples and style alone {each}, each its own prompt"


def _mask_lines(masks: FeatureMasks, settings: UnZipLoRASettings) -> list[str]:
    """Describe the features of each LoRA, in shared blocks and in those with an owner."""
    if not settings.column_separation:
        lost = ", and no blocks of their own" if settings.block_separation else ""
        return [
            "no feature masks (column_separation is off): both LoRAs have all output features"
            + lost
        ]
    if not masks.chosen:
        return ["feature masks: none chosen yet, so both LoRAs have all output features"]
    by_module = masks.by_module()
    free = [mask for name, mask in by_module.items() if name not in masks.owned]
    shares = [f"{name} {_share(free, k):.1%}" for k, name in enumerate(CONCEPTS)]
    lines = [f"feature masks: {' and '.join(shares)} of the output features of {len(free)} layers"]
    if not settings.block_separation:
        return lines
    if not masks.owned:
        missing = ", ".join(OWNERS)
        return [*lines, f"block separation left out: this model lacks some of {missing}"]
    for owner, other in ((CONTENT, STYLE), (STYLE, CONTENT)):
        own = [by_module[name] for name, k in masks.owned.items() if k == owner]
        lines.append(
            f"blocks: {CONCEPTS[owner]} has all of {len(own)} layers, "
            f"{CONCEPTS[other]} {_share(own, other):.1%} of their features"
        )
    return lines


def _merger_lines(unzipped: UnZipLoRATrained) -> list[str]:
    """Describe the mergers of the features that both LoRAs have."""
    masks = unzipped.masks
    count = int(masks.overlap.sum()) // 2
    if not count:
        return ["no feature is in both LoRAs: the merge uses both unchanged"]
    means = [f"{name} {_on_overlap(unzipped, k).mean():.2f}" for k, name in enumerate(CONCEPTS)]
    return [
        f"mergers of {count:,} features that are in both: mean of {', '.join(means)}; both below "
        f"{_NOTHING:g} on {_gone(unzipped):.0%}"
    ]


def _on_overlap(unzipped: UnZipLoRATrained, half: int) -> Tensor:
    masks = unzipped.masks
    pairs = zip(
        masks.views(unzipped.mergers).values(),
        masks.views(masks.overlap).values(),
        strict=True,
    )
    return torch.cat([m[half][both[half]] for m, both in pairs])


def _gone(unzipped: UnZipLoRATrained) -> float:
    """Compute the share of the features of both LoRAs on which both mergers are near zero."""
    if not unzipped.masks.overlap.any():
        return 0.0
    content, style = (_on_overlap(unzipped, k) < _NOTHING for k in (CONTENT, STYLE))
    return float((content & style).float().mean())


def _share(masks: list[Tensor], half: int) -> float:
    return sum(int(m[half].sum()) for m in masks) / max(1, sum(m.shape[1] for m in masks))
