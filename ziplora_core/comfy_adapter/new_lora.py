"""A new LoRA for the layers of a loaded network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ..errors import problem
from ..layers import choose_layers
from ..lora_parameters import LearnedLoRA, LoRAParameters, full_width
from ..states import generator
from .targets import weight_shapes

_START = 17  # purpose of a generator


class LoRASettings(Protocol):
    """What a trainer's settings say of its LoRA."""

    @property
    def rank(self) -> int: ...

    @property
    def alpha(self) -> float: ...

    @property
    def seed(self) -> int: ...


def new_lora(
    patcher: Any, targets: Mapping[str, str], layers: str, settings: LoRASettings
) -> LearnedLoRA:
    """Make the new LoRA of a layer choice.

    Args:
        patcher, targets, layers: see `layer_shapes`.
        settings: rank, alpha and seed.

    Raises:
        ZipLoRAError: the rank is above the width of most of the layers.
    """
    parameters = LoRAParameters(
        layer_shapes(patcher, targets, layers, settings.rank),
        settings.rank,
        settings.alpha,
        generator(settings.seed, _START, len(targets)),
        patcher.load_device,
    )
    return LearnedLoRA(parameters)


def layer_shapes(
    patcher: Any, targets: Mapping[str, str], layers: str, rank: int
) -> dict[str, tuple[int, ...]]:
    """Give the weight shapes `(out, in, *k)` of a layer choice by module.

    Args:
        patcher: ModelPatcher of a MODEL or a CLIP.
        targets: weight key by kohya module name.
        layers: one of `SLIDER_LAYERS`, which `LAYER_CHOICES` are among.
        rank: of the LoRA to be made.

    Raises:
        ZipLoRAError: the rank is above the width of most of the layers.
    """
    every = weight_shapes(patcher.model)
    shapes = {name: every[key] for name, key in targets.items()}
    chosen = choose_layers(layers, [(name, len(shape) - 2) for name, shape in shapes.items()])
    narrow = [name for name in chosen if full_width(shapes[name]) < rank]
    if 2 * len(narrow) > len(chosen):
        width = full_width(shapes[narrow[0]])
        raise problem(
            "rank",
            found=f"{rank}, above the width of {len(narrow)} of {len(chosen)} layers "
            f"({narrow[0]}: {width})",
            expected="at most the width of the layers",
            advice=f"Set rank to {width} or less; 64 is the paper's, 4 to 32 are usual.",
        )
    return {name: shapes[name] for name in chosen}
