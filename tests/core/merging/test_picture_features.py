"""Subject and style by features, on features made of numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ziplora_core.merging.picture_features import likeness, statistics, style_axis

CHANNELS = 6


def features(count: int, seed: int, side: int = 4) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(count, CHANNELS, side, side, generator=rng)


def test_a_picture_is_most_like_itself_wherever_its_parts_are() -> None:
    drawn, other = features(3, 0), features(2, 1)
    assert likeness(drawn, drawn).diagonal().tolist() == pytest.approx([1, 1, 1])
    moved = drawn.flatten(2)[..., torch.randperm(16)].view_as(drawn)
    torch.testing.assert_close(likeness(moved, other), likeness(drawn, other))
    assert (likeness(drawn, other) < 0.95).all()


def test_likeness_does_not_see_what_the_whole_picture_has() -> None:
    drawn, other = features(3, 0), features(2, 1)
    tinted = 3 * drawn + torch.arange(CHANNELS).view(-1, 1, 1)
    torch.testing.assert_close(likeness(tinted, other), likeness(drawn, other), atol=2e-3, rtol=0)


def test_likeness_is_the_mean_best_cosine_both_ways() -> None:
    a, b = features(1, 2, side=3), features(1, 3, side=2)

    def places(maps: Tensor) -> np.ndarray:
        rows = maps[0].flatten(1).numpy().T
        rows = (rows - rows.mean(0)) / (rows.std(0, ddof=1) + 1e-3)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    cosines = places(a) @ places(b).T
    wanted = (cosines.max(1).mean() + cosines.max(0).mean()) / 2
    assert float(likeness(a, b)) == pytest.approx(wanted, abs=1e-5)


def test_the_style_axis_follows_channels_that_tell_and_leaves_out_those_that_vary() -> None:
    plain, styled = features(64, 4), features(64, 5)
    styled[:, 0] += 1.0  # tells
    for maps in (plain, styled):
        maps[:, 1] += 30 * torch.randn(64, 1, 1, generator=torch.Generator().manual_seed(6))
    axis = style_axis(styled, [plain, features(8, 7)])
    assert axis.weights.abs().argmax() == 0 and axis.weights[0] > 0
    assert axis.weights[1].abs() < 0.02 * axis.weights[0]
    assert float(axis.amounts(styled).mean()) > float(axis.amounts(plain).max())


def test_statistics_are_mean_and_deviation_by_channel() -> None:
    maps = features(2, 8)
    found = statistics(maps).numpy()
    flat = maps.flatten(2).numpy()
    np.testing.assert_allclose(found[:, :CHANNELS], flat.mean(2), atol=1e-6)
    np.testing.assert_allclose(found[:, CHANNELS:], flat.std(2, ddof=1), atol=1e-6)
