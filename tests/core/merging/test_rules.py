"""The training-free merges against dense formulas, `peft` and each other's limits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from ziplora_core.errors import ZipLoRAError
from ziplora_core.lora.blocks import PRESETS, parse_blocks, weights_of
from ziplora_core.lora.factors import LoraFactors
from ziplora_core.lora.merged import MergedLoRA
from ziplora_core.lora.pair import ModulePair
from ziplora_core.merging import METHODS, MergeSettings
from ziplora_core.merging.null_space import overlap, row_space

from ..lora.factors import random_factors
from .merge_task import (
    BLOCKS,
    KERNELS,
    NAME,
    OTHER,
    TEXT,
    assert_close,
    delta,
    dense,
    make_pair,
    merged_by,
)

SEPARABLE = ("direct", "null_space", "norm_balance", "block_masks", "rank_space")
SYMMETRIC = ("direct", "norm_cap", "ties", "knots", "tsv")
GAUGE_FREE = [name for name in METHODS if name != "factor_average"]


def regauged(factors: LoraFactors, seed: int) -> LoraFactors:
    """Write the same update with other factors: up G⁻¹, G down."""
    rng = torch.Generator().manual_seed(seed)
    g = torch.randn(factors.rank, factors.rank, generator=rng).double()
    g += 2 * torch.eye(factors.rank)
    down = g @ factors.down.flatten(1).double()
    up = factors.up.flatten(1).double() @ torch.linalg.inv(g)
    return replace(
        factors, down=down.float().view_as(factors.down), up=up.float().view_as(factors.up)
    )


@pytest.mark.parametrize("method", GAUGE_FREE)
@pytest.mark.parametrize("kernel", KERNELS)
def test_result_does_not_depend_on_how_an_update_is_split_into_factors(
    method: str, kernel: int
) -> None:
    pair = make_pair(kernel)
    assert pair.content and pair.style
    other = ModulePair(regauged(pair.content, 3), regauged(pair.style, 4))
    assert_close(delta(method, other), delta(method, pair), 1e-4)


@pytest.mark.parametrize("method", GAUGE_FREE)
@pytest.mark.parametrize("kernel", KERNELS)
def test_ranks_that_a_file_does_not_use_change_nothing(method: str, kernel: int) -> None:
    """Folded merges and padded files have dead and repeated ranks."""
    pair = make_pair(kernel)

    def padded(factors: LoraFactors | None) -> LoraFactors:
        assert factors
        down = torch.cat([factors.down, factors.down[:2], torch.randn_like(factors.down[:1])])
        half = torch.cat([factors.up[:, :2] / 2, factors.up[:, 2:]], 1)
        up = torch.cat([half, factors.up[:, :2] / 2, torch.zeros_like(factors.up[:, :1])], 1)
        assert factors.alpha
        return LoraFactors(down, up, factors.alpha * len(down) / factors.rank)

    wide = ModulePair(*map(padded, pair.factors))
    assert_close(delta(method, wide), delta(method, pair), 1e-4)


@pytest.mark.parametrize("method", GAUGE_FREE)
def test_more_rank_than_a_convolution_has_inputs(method: str) -> None:
    pair = ModulePair(random_factors(50, 4, 30, 3, seed=1), random_factors(40, 4, 30, 3, seed=2))
    assert np.isfinite(delta(method, pair)).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dead", ["content", "style"])
def test_update_whose_factors_cancel_counts_as_none(method: str, dead: str) -> None:
    pair = make_pair(ranks=(4, 4))
    zero = LoraFactors(torch.eye(4, 40), torch.zeros(30, 4))
    zero.down[2:] = 0  # up meets only rows of down that are zero
    zero.up[:, 2:] = 1
    living = pair.style if dead == "content" else pair.content
    half = ModulePair(zero, pair.style) if dead == "content" else ModulePair(pair.content, zero)
    if method not in ("factor_average", "block_masks"):
        assert_close(delta(method, half), dense(living))


@pytest.mark.parametrize("method", METHODS)
def test_a_weight_of_zero_gives_the_other_lora(method: str) -> None:
    pair = make_pair(ranks=(3, 3))
    content = dense(pair.content) * (1.3 if method != "factor_average" else 1)
    assert_close(delta(method, pair, content_weight=1.3, style_weight=0.0), content)
    if method != "block_masks":  # the block is the content's
        assert_close(delta(method, pair, content_weight=0.0), dense(pair.style))


@pytest.mark.parametrize("method", SEPARABLE)
def test_strengths_after_the_merge_equal_weights_before_it(method: str) -> None:
    pair = make_pair(3)
    merged = merged_by(method, pair)
    assert merged.separable
    after = dense(merged.modules(0.6, -1.4)[NAME])
    assert_close(after, delta(method, pair, content_weight=0.6, style_weight=-1.4))


@pytest.mark.parametrize("method", [m for m in METHODS if m not in (*SEPARABLE, "norm_cap")])
def test_methods_that_mix_say_that_strengths_mean_nothing(method: str) -> None:
    assert not merged_by(method, make_pair(ranks=(3, 3))).separable


@pytest.mark.parametrize("method", SYMMETRIC)
def test_swapping_content_and_style_changes_nothing(method: str) -> None:
    pair = make_pair()
    assert_close(delta(method, ModulePair(pair.style, pair.content)), delta(method, pair))


@pytest.mark.parametrize("method", METHODS)
def test_rank_stays_within_that_of_both_or_what_is_asked_for(method: str) -> None:
    pair = make_pair(ranks=(3, 3))
    assert all(f.rank <= 6 for f in merged_by(method, pair).modules().values())
    assert all(f.rank <= 2 for f in merged_by(method, pair, rank=2).modules().values())


@pytest.mark.parametrize("method", [m for m in METHODS if m != "factor_average"])
def test_text_encoder_and_lonely_modules_are_summed(method: str) -> None:
    pair, alone = make_pair(), make_pair(seed=9)
    sources = MergedLoRA(
        {NAME: pair, OTHER: ModulePair(style=alone.style)}, text_encoder={TEXT: make_pair(seed=5)}
    )
    settings = MergeSettings(0.5, -2.0, blocks=BLOCKS)
    modules = METHODS[method](sources, settings)[0].modules()
    if method != "norm_cap":
        text = make_pair(seed=5)
        assert_close(dense(modules[TEXT]), 0.5 * dense(text.content) - 2 * dense(text.style))
        assert_close(dense(modules[OTHER]), -2 * dense(alone.style))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("mu", [0.0, 0.5, 7.0])
def test_null_space_equals_its_dense_formula(kernel: int, mu: float) -> None:
    pair = make_pair(kernel)
    content, style = dense(pair.content), dense(pair.style)
    _, _, vh = np.linalg.svd(style, full_matrices=False)
    v = vh[:3].T
    want = style + content @ (np.eye(len(v)) - mu / (1 + mu) * v @ v.T)
    assert_close(delta("null_space", pair, mu=mu), want)


def test_null_space_shrinks_the_inner_product_by_its_mu() -> None:
    pair = make_pair()
    kept = dense(merged_by("null_space", pair, mu=3.0).pairs[NAME].content)
    style = dense(pair.style)
    assert (kept * style).sum() * 4 == pytest.approx((dense(pair.content) * style).sum(), rel=1e-4)
    hard = dense(merged_by("null_space", pair, mu=1e9).pairs[NAME].content)
    assert abs(hard @ style.T).max() < 1e-4 * abs(dense(pair.content) @ style.T).max()


def test_null_space_ignores_how_strong_the_style_is() -> None:
    pair = make_pair()
    weak = merged_by("null_space", pair, style_weight=0.01).pairs[NAME].content
    strong = merged_by("null_space", pair, style_weight=-5.0).pairs[NAME].content
    assert_close(dense(weak), dense(strong))


def test_row_space_leaves_out_directions_that_up_does_not_use() -> None:
    factors = random_factors(4, 40, 30)
    dead = replace(factors, up=factors.up.clone())
    dead.up[:, 3] = 0
    assert len(row_space(factors)) == 4 and len(row_space(dead)) == 3
    assert overlap(factors, row_space(factors)) == pytest.approx(1.0)


@pytest.mark.parametrize("kernel", KERNELS)
def test_norm_balance_gives_both_the_same_norm(kernel: int) -> None:
    pair = make_pair(kernel)
    merged = merged_by("norm_balance", pair).pairs[NAME]
    content, style = dense(merged.content), dense(merged.style)
    assert_close(content, dense(pair.content))
    assert np.linalg.norm(style) == pytest.approx(np.linalg.norm(content), rel=1e-5)
    ratio = np.linalg.norm(style) / np.linalg.norm(dense(pair.style))
    assert_close(style, ratio * dense(pair.style))


def test_norm_cap_keeps_the_sum_at_the_stronger_one() -> None:
    pair = make_pair()
    content, style = dense(pair.content), dense(pair.style)
    limit = max(np.linalg.norm(content), np.linalg.norm(style))
    total = content + style
    assert_close(delta("norm_cap", pair), total * limit / np.linalg.norm(total))
    against = ModulePair(pair.content, replace(pair.content, alpha=-1.0)) if pair.content else pair
    assert_close(delta("norm_cap", against), dense(against.content) + dense(against.style))


def test_block_masks_keep_the_sources_bits() -> None:
    pair = make_pair()
    sources = MergedLoRA({NAME: pair, OTHER: pair})
    merged, (line,) = METHODS["block_masks"](sources, MergeSettings(blocks=PRESETS["b_lora"]))
    assert merged.pairs[NAME].style is None and merged.pairs[OTHER].content is None
    content, style = merged.pairs[NAME].content, merged.pairs[OTHER].style
    assert content and style and pair.content and pair.style
    assert torch.equal(content.down, pair.content.down) and torch.equal(style.up, pair.style.up)
    assert line == "share of ‖delta‖² kept in the UNet: content 50%, style 50%"


def test_weights_of_take_the_longest_block() -> None:
    blocks = parse_blocks("output_blocks 0.5 0.5\noutput_blocks.0.1: 1, 0  # content\n* 0 1\n")
    assert weights_of(blocks, NAME) == (1.0, 0.0)
    assert weights_of(blocks, OTHER) == (0.5, 0.5)
    assert weights_of(blocks, "lora_unet_output_blocks_0_12_x") == (0.5, 0.5)
    assert weights_of(blocks, "lora_unet_middle_block_1_proj_in") == (0.0, 1.0)
    assert weights_of({}, NAME) == (1.0, 1.0)


@pytest.mark.parametrize("text", ["output_blocks.0.1 1", "a b c", "x 1 2 3"])
def test_unreadable_block_line_is_named(text: str) -> None:
    with pytest.raises(ZipLoRAError, match=text):
        parse_blocks(f"middle_block 1 1\n{text}")
