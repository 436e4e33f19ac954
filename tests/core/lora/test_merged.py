"""Merging on factors equals merging dense updates."""

from __future__ import annotations

import pytest
import torch

from ziplora_core.errors import ZipLoRAError
from ziplora_core.lora.factors import LoraFactors
from ziplora_core.lora.merged import MergedLoRA, column_cosines, join, layer_cosine, truncated
from ziplora_core.lora.pair import ModulePair, pair_modules, scaled
from ziplora_core.lora.svd import inner_product

from .factors import random_factors

KERNELS = [0, 3]


def make_pair(kernel: int = 0) -> ModulePair:
    return ModulePair(
        random_factors(4, 40, 30, kernel, alpha=2.0, seed=1),
        random_factors(3, 40, 30, kernel, alpha=-6.0, seed=2),
    )


def columnwise(column: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    return column.view(1, -1, *(1,) * (delta.ndim - 2)) * delta


@pytest.mark.parametrize("kernel", KERNELS)
def test_join_equals_equation_two_on_dense_updates(kernel: int) -> None:
    pair, m = make_pair(kernel), torch.randn(2, 40)
    assert pair.content and pair.style
    joined = join(pair, m, (0.7, -1.3))
    assert joined is not None
    want = 0.7 * columnwise(m[0], pair.content.delta())
    want = want - 1.3 * columnwise(m[1], pair.style.delta())
    torch.testing.assert_close(joined.delta(), want, rtol=1e-4, atol=1e-4)
    assert joined.rank == 7 and joined.scale == 1.0


def test_join_zero_strength_leaves_the_half_out() -> None:
    pair = make_pair()
    joined = join(pair, None, (1.0, 0.0))
    assert joined is not None and pair.content is not None
    assert joined.rank == pair.content.rank
    torch.testing.assert_close(joined.delta(), pair.content.delta())
    assert join(pair, None, (0.0, 0.0)) is None


def test_join_content_rows_come_first() -> None:
    pair = make_pair()
    joined = join(pair)
    assert joined is not None and pair.content is not None
    assert torch.equal(joined.down[:4], pair.content.down)


def test_truncated_merge_weighs_all_modules_in_its_error() -> None:
    pairs = {"lora_unet_a": make_pair(), "lora_unet_b": make_pair(3)}
    merged = MergedLoRA(pairs, text_encoder={"lora_te1_a": ModulePair(random_factors(2))})
    reduced, error = truncated(merged, 2)
    assert not reduced.separable and set(reduced.pairs) == set(pairs)
    dense = {n: f.delta() for n, f in merged.modules().items()}
    lost = sum((dense[n] - f.delta()).square().sum() for n, f in reduced.modules().items())
    total = sum(d.square().sum() for d in dense.values())
    assert error == pytest.approx(float(lost / total) ** 0.5, rel=1e-4)


def test_truncated_to_no_less_than_it_has_stays_separable() -> None:
    merged = MergedLoRA({"lora_unet_a": make_pair()})
    assert truncated(merged, 7) == (merged, 0.0)


@pytest.mark.parametrize("kernel", KERNELS)
def test_inner_product_and_cosines_equal_the_dense_ones(kernel: int) -> None:
    pair, m = make_pair(kernel), torch.randn(2, 40)
    assert pair.content and pair.style
    content, style = pair.content.delta(), pair.style.delta()
    assert inner_product(pair.content, pair.style) == pytest.approx(
        float((content * style).sum()), rel=1e-4
    )
    a, b = columnwise(m[0], content).flatten(), columnwise(m[1], style).flatten()
    want = torch.nn.functional.cosine_similarity(a, b, dim=0)
    assert layer_cosine(pair, m) == pytest.approx(float(want), abs=1e-5)
    columns = torch.nn.functional.cosine_similarity(
        content.transpose(0, 1).flatten(1), style.transpose(0, 1).flatten(1)
    )
    torch.testing.assert_close(column_cosines(pair), columns, rtol=1e-4, atol=1e-5)


def test_pair_modules_keeps_what_one_lora_has_alone() -> None:
    a, b = random_factors(1), random_factors(2)
    pairs = pair_modules({"x": a, "both": a}, {"both": b, "y": b})
    assert [pairs[n].shared for n in ("both", "x", "y")] == [True, False, False]
    assert pairs["y"].content is None and pairs["x"].one is a


def test_scaled_multiplies_the_update() -> None:
    factors = random_factors(3, alpha=6.0)
    got = scaled({"x": factors}, -0.5)["x"]
    torch.testing.assert_close(got.delta(), -0.5 * factors.delta())


def test_lora_factors_missing_alpha_has_scale_one() -> None:
    assert LoraFactors(torch.ones(2, 3), torch.ones(4, 2)).scale == 1.0
    assert LoraFactors(torch.ones(2, 3), torch.ones(4, 2), 1.0).scale == 0.5


def test_merge_at_strengths_gives_at_one_what_the_merge_gives_at_them() -> None:
    text = ModulePair(style=random_factors(2, 40, 30, seed=3))
    merged = MergedLoRA(
        {"lora_unet_a": make_pair()}, {"lora_unet_a": torch.randn(2, 40)}, {"lora_te1_b": text},
        {"ziplora.method": "direct"},
    )  # fmt: skip
    before = merged.modules()
    folded = merged.at(0.9, -0.7)
    wanted = merged.modules(0.9, -0.7)
    for name, factors in folded.modules().items():
        assert torch.allclose(factors.delta(), wanted[name].delta(), atol=1e-5)
    assert folded.modules().keys() == wanted.keys()
    half, other = folded.pairs["lora_unet_a"].content, merged.pairs["lora_unet_a"].content
    assert half and other and half.down is other.down  # the factors are shared
    assert folded.metadata == {"ziplora.method": "direct", "ziplora.strengths": "0.9 / -0.7"}
    assert folded.at(2, 1).metadata["ziplora.strengths"] == "0.9 / -0.7, then 2 / 1"
    assert "ziplora.strengths" not in merged.metadata
    assert all(torch.equal(f.up, before[n].up) for n, f in merged.modules().items())


def test_merge_at_strength_zero_has_no_such_half() -> None:
    merged = MergedLoRA({"lora_unet_a": make_pair()})
    (pair,) = merged.at(0, 1).pairs.values()
    assert pair.content is None and pair.style is not None
    assert merged.at(0, 0).pairs == {}


def test_merge_that_is_not_separable_takes_equal_strengths_only() -> None:
    merged, _ = truncated(MergedLoRA({"lora_unet_a": make_pair()}), 2)
    halved = merged.at(0.5, 0.5).modules()["lora_unet_a"].delta()
    assert torch.allclose(halved, 0.5 * merged.modules()["lora_unet_a"].delta(), atol=1e-5)
    with pytest.raises(ZipLoRAError, match="equal strengths"):
        merged.at(0.9, 0.7)
