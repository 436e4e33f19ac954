"""A new LoRA for the layers of a loaded network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol

import comfy.model_management
import torch

from ...errors import problem
from ...lora.layers import choose_layers
from ...training.lora_parameters import LearnedLoRA, LoRAParameters, full_width
from ...training.random import Stream, generator
from ..model.targets import weight_shapes


class LoRASettings(Protocol):
    """The settings of a trainer that its LoRA is created from."""

    @property
    def rank(self) -> int: ...

    @property
    def alpha(self) -> float: ...

    @property
    def seed(self) -> int: ...


def new_lora(
    patcher: Any, targets: Mapping[str, str], layers: str, settings: LoRASettings
) -> LearnedLoRA:
    """Create the new LoRA of a layer choice.

    Args:
        patcher, targets, layers: see `layer_shapes`.
        settings: rank, alpha and seed.

    Raises:
        ZipLoRAError: the rank is above the width of most of the layers.
    """
    shapes = layer_shapes(patcher, targets, layers, settings.rank)
    make_room(shapes, settings.rank, patcher.load_device)
    parameters = LoRAParameters(
        shapes,
        settings.rank,
        settings.alpha,
        generator(settings.seed, Stream.LORA_START, len(targets)),
        patcher.load_device,
    )
    return LearnedLoRA(parameters)


def make_room(
    shapes: Mapping[str, tuple[int, ...]], rank: int, device: torch.device, count: int = 1
) -> None:
    """Have ComfyUI unload models until the float32 factors of new LoRAs fit on the device.

    Args:
        shapes: weight shapes `(out, in, *k)`.
        rank: rank of the factors.
        device: device of the factors.
        count: number of LoRAs.
    """
    numbers = sum(rank * (out + math.prod(rest)) for out, *rest in shapes.values())
    comfy.model_management.free_memory(4 * numbers * count, device)


def layer_shapes(
    patcher: Any, targets: Mapping[str, str], layers: str, rank: int
) -> dict[str, tuple[int, ...]]:
    """Return the weight shapes `(out, in, *k)` of a layer choice by kohya module name.

    Args:
        patcher: ModelPatcher of a MODEL or a CLIP.
        targets: weight keys by kohya module name.
        layers: one of `SLIDER_LAYERS`, which include `LAYER_CHOICES`.
        rank: rank of the new LoRA.

    Raises:
        ZipLoRAError: there are no such layers, or the rank is above the width of most of them.
    """
    every = weight_shapes(patcher.model)
    shapes = {name: every[key] for name, key in targets.items()}
    chosen = choose_layers(layers, [(name, len(shape) - 2) for name, shape in shapes.items()])
    if not chosen:
        raise problem(
            f"layers={layers}",
            found="no such layers in this model",
            expected="layers that it has",
            advice="Choose attention or attention_ff: a model without a cross-attention of its own "
            "has its prompt in all of its attention.",
        )
    narrow = [name for name in chosen if full_width(shapes[name]) < rank]
    if 2 * len(narrow) > len(chosen):
        width = full_width(shapes[narrow[0]])
        raise problem(
            "rank",
            found=f"{rank}, above the width of {len(narrow)} of {len(chosen)} layers "
            f"({narrow[0]}: {width})",
            expected="at most the width of the layers",
            advice=f"Set rank to {width} or less; the paper uses 64, 4 to 32 are common.",
        )
    return {name: shapes[name] for name in chosen}
