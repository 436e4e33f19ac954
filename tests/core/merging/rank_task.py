"""Tokens that two LoRAs see, and the moments collected from them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ziplora_core.lora.pair import ModulePair
from ziplora_core.merging.rank_moments import CONTENT, JOINT, STYLE, RankMoments
from ziplora_core.training.activations import tokens


def make_layer(pair: ModulePair) -> nn.Module:
    """A layer of the pair's shape; a convolution with stride and padding."""
    out, width, *kernel = pair.one.delta().shape
    return nn.Conv2d(width, out, kernel[0], 2, 1) if kernel else nn.Linear(width, out)


def draw_inputs(pair: ModulePair, seed: int, tokens: int = 400) -> Tensor:
    """Inputs of one concept; they differ in scale and, by their mean, in direction."""
    rng = torch.Generator().manual_seed(seed)
    width = pair.one.down.shape[1]
    kernel = pair.one.down.ndim - 2
    shape = (tokens // 16, width, 8, 8) if kernel else (2, tokens // 2, width)
    x = torch.randn(shape, generator=rng)
    mean = 2 * torch.randn(width, generator=rng)
    return x + (mean[:, None, None] if kernel else mean)


def seen(
    pair: ModulePair,
    content: Sequence[Tensor] = (),
    style: Sequence[Tensor] = (),
    joint: Sequence[Tensor] = (),
    joint_weight: float = 1.0,
) -> RankMoments:
    """Collect the moments of a layer of the pair's shape."""
    moments, layer = RankMoments(pair, joint_weight), make_layer(pair)
    for concept, inputs in ((CONTENT, content), (STYLE, style), (JOINT, joint)):
        for x in inputs:
            moments.add(x, concept, layer)
    return moments


def seen_by_default(pair: ModulePair) -> RankMoments:
    """Moments of inputs that differ between content and style."""
    return seen(pair, [draw_inputs(pair, 1)], [draw_inputs(pair, 2)])


def columns_of(pair: ModulePair, x: Tensor) -> Tensor:
    """The tokens of an input as columns, `(in · taps, token)`, float64."""
    return tokens(x, make_layer(pair)).flatten(0, 1).double().T
