"""Every way to merge that the pack has, under the names of the table."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from miniworld.parts import Parts
from miniworld.scenes import SIDE
from ziplora_core.comfy_adapter.model.pair_on_model import merge_pair
from ziplora_core.comfy_adapter.tools.calibration import CalibrationPrompts, calibrate
from ziplora_core.comfy_adapter.train.ziplora import train_ziplora
from ziplora_core.comfy_adapter.train.ziplora_inputs import Prompt, joint_prompts
from ziplora_core.lora.blocks import PRESETS
from ziplora_core.lora.factors import LoraFactors
from ziplora_core.lora.merged import MergedLoRA
from ziplora_core.lora.pair import LoRAPair
from ziplora_core.merging import METHODS, MergeSettings
from ziplora_core.training.options import TrainingOptions
from ziplora_core.ziplora.options import ZipLoRASettings

from .sources import LAYERS, RANK, joint_lora
from .subjects import CONTENT_PROMPT, JOINT_PROMPT, STYLE_WORD, SUBJECT, Pair

Modules = Mapping[str, LoraFactors]
OPTIONS = TrainingOptions(sample_every=0, checkpoint_every=0, held_out_draws=0)


@dataclass(frozen=True)
class Task:
    """The inputs of a merge."""

    parts: Parts
    pair: Pair
    loras: LoRAPair


@dataclass(frozen=True)
class Merge:
    """The result of a method.

    Args:
        modules: the LoRA that is applied; empty for the base model.
        merged: with its two halves, where there are two.
    """

    modules: Modules
    merged: MergedLoRA | None = None


Method = Callable[[Task, int], Merge]
"""From the task and a seed to the merge."""


def base(task: Task, seed: int) -> Merge:
    return Merge({})


def content_only(task: Task, seed: int) -> Merge:
    return Merge(task.loras.content.modules)


def style_only(task: Task, seed: int) -> Merge:
    return Merge(task.loras.style.modules)


def joint_training(task: Task, seed: int) -> Merge:
    return Merge(joint_lora(task.parts, task.pair, seed).modules)


def unlearned(
    method: str, settings: MergeSettings, prompts: bool = False, joint: bool = False
) -> Method:
    """A method of Merge LoRAs.

    Args:
        prompts: connect both LoRAs' own prompts.
        joint: connect the joint prompt, too.
    """

    def merge(task: Task, seed: int) -> Merge:
        parts, chosen = task.parts, settings
        if prompts:
            shown = CalibrationPrompts(
                parts.encode(CONTENT_PROMPT),
                parts.encode(task.pair.style_prompt),
                parts.encode(JOINT_PROMPT) if joint else None,
                *(seed, SIDE, SIDE),
            )
            seen = calibrate(parts.model, task.loras, shown)
            chosen = replace(settings, moments=seen.moments)
        merged, _ = merge_pair(parts.model.model, task.loras, method, chosen)
        return _of(merged)

    return merge


@dataclass(frozen=True)
class ZipLoRA:
    """ZipLoRA Optimize with these settings.

    Args:
        pictures: give it the training pictures as reference latents.
        joint: connect the joint prompt, too.
        wordings: further joint prompts.
    """

    pictures: bool = False
    joint: bool = False
    wordings: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, task: Task, seed: int) -> Merge:
        settings = ZipLoRASettings(
            layers=LAYERS, width=SIDE, height=SIDE, seed=seed, memory="fast", options=OPTIONS
        )
        parts, pair = task.parts, task.pair
        prompts = [
            Prompt("content", parts.encode(CONTENT_PROMPT)),
            Prompt("style", parts.encode(pair.style_prompt)),
        ]
        if self.pictures:
            shown = (pair.content_pictures(), pair.style_pictures())
            prompts = [
                replace(prompt, latent={"samples": parts.vae.encode(images.movedim(1, -1))})
                for prompt, images in zip(prompts, shown, strict=True)
            ]
        if self.joint:
            asked = [parts.encode(text)[0] for text in (JOINT_PROMPT, *self.wordings)]
            prompts += joint_prompts(asked)
        with tempfile.TemporaryDirectory() as folder:
            result = train_ziplora(
                parts.model, task.loras, prompts, replace(settings, **self.settings), Path(folder)
            )
        return _of(result.merged)


PLAIN = {
    "solver": "adam", "similarity_weight": 0.01, "bounded": False, "joint_content": 1.0,
    "joint_style": 1.0, "joint_weight": 1.0, "negative_strength": 1.0,
}  # fmt: skip
"""Taught for drawing by any LoRA loader, with both LoRAs at full strength in both halves; the
paper's λ, and a closed form without bounds."""


def _zip(joint: bool = False, **settings: Any) -> ZipLoRA:
    return ZipLoRA(joint=joint, settings={**PLAIN, **settings})


def _taught(wordings: Sequence[str] = (), **settings: Any) -> ZipLoRA:
    """ZipLoRA at the node's defaults: taught for the base model in the unconditional half."""
    return ZipLoRA(joint=True, wordings=wordings, settings=settings)


DIRECT, NULL_SPACE = "direct", "null_space"
RANK_SPACE, CLOSED_FORM = "rank_space, joint", "closed form, joint"
TABLE: dict[str, Method] = {
    "base model": base,
    "content LoRA alone": content_only,
    "style LoRA alone": style_only,
    "joint training": joint_training,
    DIRECT: unlearned("direct", MergeSettings()),
    f"svd, rank {RANK}": unlearned("svd", MergeSettings(rank=RANK)),
    "factor_average": unlearned("factor_average", MergeSettings()),
    NULL_SPACE: unlearned("null_space", MergeSettings()),
    "norm_balance": unlearned("norm_balance", MergeSettings()),
    "norm_cap": unlearned("norm_cap", MergeSettings()),
    "block_masks, b_lora": unlearned("block_masks", MergeSettings(blocks=PRESETS["b_lora"])),
    "ties": unlearned("ties", MergeSettings()),
    "knots": unlearned("knots", MergeSettings()),
    "tsv": unlearned("tsv", MergeSettings()),
    "rank_space": unlearned("rank_space", MergeSettings(), prompts=True),
    RANK_SPACE: unlearned("rank_space", MergeSettings(), prompts=True, joint=True),
    "closed form": _zip(solver="closed_form"),
    CLOSED_FORM: _zip(solver="closed_form", joint=True),
    "closed form, attention, joint": _zip(solver="closed_form", joint=True, layers="attention"),
    "ZipLoRA": _zip(),
    "ZipLoRA, joint": _zip(joint=True),
    "ZipLoRA, λ 0.001": _zip(similarity_weight=0.001),
    "ZipLoRA, λ 0": _zip(similarity_weight=0.0),
}
"""ZipLoRA alone means the paper's solver and settings (cosine, λ 0.01, learning rate 0.01, 100
steps) on all layers that the LoRAs have."""
WORDINGS = (
    f"{SUBJECT} on the right in {STYLE_WORD} style",
    f"a large {SUBJECT[2:]} with a small circle in {STYLE_WORD} style",
    f"{SUBJECT[2:]} {STYLE_WORD}",
)
"""Joint prompts beside the first; none is drawn when merges are measured."""
TAUGHT = "closed form, taught"
TAUGHT_BY_FOUR = f"{TAUGHT} by four prompts"
ADAM_TAUGHT = "ZipLoRA, taught"
TAUGHT_TABLE: dict[str, Method] = {
    TAUGHT: _taught(),
    f"{TAUGHT} with weight 1": _taught(joint_weight=1.0),
    f"{TAUGHT} without bounds": _taught(bounded=False),
    f"{TAUGHT} at 1 / 1": _taught(joint_content=1.0, joint_style=1.0),
    TAUGHT_BY_FOUR: _taught(WORDINGS),
    ADAM_TAUGHT: _taught(solver="adam"),
    f"{ADAM_TAUGHT}, λ 0.01": _taught(solver="adam", similarity_weight=0.01),
}
"""Merges to draw with the base model in the unconditional half."""
EVERY_METHOD = {**TABLE, **TAUGHT_TABLE}
assert all(any(name.startswith(method) for name in TABLE) for method in METHODS)


def _of(merged: MergedLoRA) -> Merge:
    return Merge(merged.modules(), merged if merged.separable else None)
