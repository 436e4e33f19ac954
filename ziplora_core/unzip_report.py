"""What UnZipLoRA says of its training: in the report, and in its three files."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from .coefficients import CONTENT, STYLE
from .dreambooth_metadata import picture_metadata
from .dreambooth_report import Trained, pictures_line, prior_line, run_lines
from .options import UnZipSettings
from .report import compose
from .unzip import CONCEPTS
from .unzip_columns import OWNERS, Columns
from .unzip_prompts import prompt_of, same_prompts

_NOTHING = 0.1
"""A merger below which a LoRA's feature is all but gone from the combined picture."""
_MANY = 0.5
"""Share of the features of both from which both being gone is worth a warning."""


@dataclass(frozen=True)
class UnZipped:
    """What came out beside the LoRAs, all of it on the CPU.

    Args:
        trained: as of any LoRA.
        columns: which features each has.
        mergers: m in the layout of the columns.
    """

    trained: Trained
    columns: Columns
    mergers: Tensor


def unzip_report(unzipped: UnZipped, settings: UnZipSettings) -> str:
    """Compose UnZipLoRATrain's report, warnings first."""
    trained = unzipped.trained
    lines = [f"WARNING: {text}" for text in _warnings(unzipped, settings)]
    layers = len(unzipped.columns.heights)
    lines += [
        f"UnZipLoRA of {pictures_line(trained.examples)}",
        f"content and style LoRA of rank {settings.rank} each, {layers} layers "
        f"({settings.layers}), {len(unzipped.mergers):,} mergers",
        *_column_lines(unzipped.columns, settings),
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


def unzip_metadata(trained: Trained, settings: UnZipSettings, part: str) -> dict[str, str]:
    """Compose the strings of one of the three files.

    Args:
        part: `content`, `style` or `merged`.
    """
    prompt, style = prompt_of(settings, part), part == "style"
    rate = settings.style_learning_rate if style else settings.content_learning_rate
    rates = {"learning_rate": rate, "unet_lr": rate, "text_encoder_lr": None}
    captions = Counter({prompt: len(trained.examples)})
    return {
        **picture_metadata(trained, settings, rates, captions, prompt),
        "ziplora.method": "unziplora",
        "ziplora.part": part,
        "ziplora.settings": json.dumps(asdict(settings)),
    }


def _warnings(unzipped: UnZipped, settings: UnZipSettings) -> list[str]:
    record = unzipped.trained.record
    warnings = [record.stopped] if record.failed and record.stopped else []
    if not record.step:
        warnings.append("nothing was learned: it was stopped before the first step")
    warnings += same_prompts(settings)
    warnings += [
        f"{name}_learning_rate is 0: the {name} LoRA is the random noise it has started from"
        for name, rate in zip(CONCEPTS, settings.learning_rates[:2], strict=True)
        if rate == 0
    ]
    if (gone := _gone(unzipped)) > _MANY:
        warnings.append(
            f"on {gone:.0%} of the features that both LoRAs have, both mergers went to nothing: "
            "neither counts there in the combined picture. Lower weight_learning_rate or "
            "similarity_weight, or choose mergers=disjoint."
        )
    share = settings.column_ratio * settings.sample_times
    if settings.column_separation and share > 0.5:
        warnings.append(
            f"column_ratio × sample_times asks for {share:.0%} of the features for each LoRA: it "
            "gets half where it does not own the block, as no feature is both's"
        )
    return warnings


def _column_lines(columns: Columns, settings: UnZipSettings) -> list[str]:
    """Say how many features each LoRA has, where nobody owns the block and where somebody does."""
    if not settings.column_separation:
        lost = ", and no blocks of their own" if settings.block_separation else ""
        return [f"no column separation: both LoRAs have all output features{lost}"]
    if not columns.chosen:
        return ["columns: none chosen yet, so both LoRAs have all output features"]
    masks = columns.masks()
    free = [mask for name, mask in masks.items() if name not in columns.owned]
    shares = [f"{name} {_share(free, k):.1%}" for k, name in enumerate(CONCEPTS)]
    lines = [f"columns: {' and '.join(shares)} of the output features of {len(free)} layers"]
    if not settings.block_separation:
        return lines
    if not columns.owned:
        missing = ", ".join(OWNERS)
        return [*lines, f"block separation left out: this model has not all of {missing}"]
    for owner, other in ((CONTENT, STYLE), (STYLE, CONTENT)):
        own = [masks[name] for name, k in columns.owned.items() if k == owner]
        lines.append(
            f"blocks: {CONCEPTS[owner]} has all of {len(own)} layers, "
            f"{CONCEPTS[other]} {_share(own, other):.1%} of their features"
        )
    return lines


def _merger_lines(unzipped: UnZipped) -> list[str]:
    """Say what the mergers became where there is something to weigh."""
    columns = unzipped.columns
    count = int(columns.overlap.sum()) // 2
    if not count:
        return ["no feature is in both LoRAs: the combined picture has both as they are"]
    means = [f"{name} {_on_overlap(unzipped, k).mean():.2f}" for k, name in enumerate(CONCEPTS)]
    return [
        f"mergers of {count:,} features that are in both: mean of {', '.join(means)}; both below "
        f"{_NOTHING:g} on {_gone(unzipped):.0%}"
    ]


def _on_overlap(unzipped: UnZipped, half: int) -> Tensor:
    columns = unzipped.columns
    pairs = zip(
        columns.views(unzipped.mergers).values(),
        columns.views(columns.overlap).values(),
        strict=True,
    )
    return torch.cat([m[half][both[half]] for m, both in pairs])


def _gone(unzipped: UnZipped) -> float:
    """Share of the features of both on which both mergers are next to nothing."""
    if not unzipped.columns.overlap.any():
        return 0.0
    content, style = (_on_overlap(unzipped, k) < _NOTHING for k in (CONTENT, STYLE))
    return float((content & style).float().mean())


def _share(masks: list[Tensor], half: int) -> float:
    return sum(int(m[half].sum()) for m in masks) / max(1, sum(m.shape[1] for m in masks))
