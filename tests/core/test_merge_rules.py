"""The training-free merges against dense formulas, `peft` and each other's limits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from peft.utils import merge_utils

from ziplora_core.blocks import PRESETS, parse_blocks, weights_of
from ziplora_core.errors import ZipLoRAError
from ziplora_core.lora import LoraFactors
from ziplora_core.merge import MergedLoRA
from ziplora_core.merge_methods import CALIBRATED, METHODS, MergeSettings
from ziplora_core.merge_methods.core_space import common_basis
from ziplora_core.merge_methods.null_space import overlap, row_space
from ziplora_core.pairing import ModulePair

from .factors import random_factors
from .rank_task import seen_by_default

Matrix = npt.NDArray[np.float64]
KERNELS = [0, 3]
NAME = "lora_unet_output_blocks_0_1_transformer_blocks_0_attn1_to_q"
OTHER = "lora_unet_output_blocks_1_1_transformer_blocks_0_attn1_to_q"
TEXT = "lora_te1_text_model_encoder_layers_0_mlp_fc1"
BLOCKS = PRESETS["b_lora_protected"]
SEPARABLE = ("direct", "null_space", "norm_balance", "block_masks", "rank_space")
SYMMETRIC = ("direct", "norm_cap", "ties", "knots", "tsv")
GAUGE_FREE = [name for name in METHODS if name != "factor_average"]


def make_pair(kernel: int = 0, ranks: tuple[int, int] = (4, 3), seed: int = 1) -> ModulePair:
    return ModulePair(
        random_factors(ranks[0], 40, 30, kernel, alpha=2.0, seed=seed),
        random_factors(ranks[1], 40, 30, kernel, alpha=-6.0, seed=seed + 1),
    )


def merged_by(method: str, pair: ModulePair, **settings: Any) -> MergedLoRA:
    sources = MergedLoRA({NAME: pair}, text_encoder={TEXT: make_pair(ranks=(3, 3), seed=5)})
    moments = {NAME: seen_by_default(pair)} if method in CALIBRATED else {}
    return METHODS[method](sources, MergeSettings(blocks=BLOCKS, moments=moments, **settings))[0]


def dense(factors: LoraFactors | None) -> Matrix:
    assert factors is not None
    return factors.delta().flatten(1).double().numpy()


def delta(method: str, pair: ModulePair, **settings: Any) -> Matrix:
    return dense(merged_by(method, pair, **settings).modules()[NAME])


def assert_close(got: Matrix, want: Matrix, limit: float = 1e-5) -> None:
    assert np.linalg.norm(got - want) <= limit * np.linalg.norm(want)


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


@pytest.mark.parametrize("kernel", KERNELS)
def test_common_basis_is_lossless(kernel: int) -> None:
    pair = make_pair(kernel)
    assert pair.content and pair.style
    u, v, cores = common_basis(pair.content, pair.style)
    for core, factors in zip(cores, pair.factors, strict=True):
        assert_close((u @ core @ v.T).numpy(), dense(factors))


@pytest.mark.parametrize("density", [1.0, 0.5, 0.2])
def test_ties_equals_peft_in_the_core_space(density: float) -> None:
    """`peft` averages what agrees in sign; the sum is that times how many agree."""
    pair = make_pair()
    assert pair.content and pair.style
    u, v, cores = common_basis(pair.content, pair.style)
    ones = torch.ones(2, dtype=torch.float64)
    mean = merge_utils.ties(list(cores), ones, density)
    trimmed = torch.stack([merge_utils.prune(core, density, "magnitude") for core in cores])
    agree = ((trimmed * torch.sign(trimmed.sum(0))) > 0).sum(0)
    want = (u @ (mean * agree) @ v.T).numpy()
    assert_close(delta("ties", pair, density=density), want)


@pytest.mark.parametrize("kernel", KERNELS)
def test_knots_equals_its_dense_formula(kernel: int) -> None:
    pair = make_pair(kernel)
    both = np.concatenate([dense(pair.content), dense(pair.style)], 1)
    u, s, vh = np.linalg.svd(both, full_matrices=False)
    rows = np.split((s[:, None] * vh)[:7], 2, 1)
    mean = merge_utils.ties([torch.from_numpy(r.copy()) for r in rows], torch.ones(2).double(), 0.5)
    trimmed = [merge_utils.prune(torch.from_numpy(r.copy()), 0.5, "magnitude") for r in rows]
    sign = torch.sign(trimmed[0] + trimmed[1])
    agree = sum((t * sign > 0).double() for t in trimmed)
    assert_close(delta("knots", pair, density=0.5), u[:, :7] @ (mean * agree).numpy(), 1e-4)


@pytest.mark.parametrize("method", ["ties", "knots"])
def test_density_one_of_a_lora_with_itself_is_twice_the_lora(method: str) -> None:
    factors = random_factors(4, 40, 30)
    got = delta(method, ModulePair(factors, factors), density=1.0)
    assert_close(got, 2 * dense(factors))


@pytest.mark.parametrize("kernel", KERNELS)
def test_tsv_keeps_both_spectra(kernel: int) -> None:
    pair = make_pair(kernel)
    values = np.concatenate([
        np.linalg.svd(dense(f), compute_uv=False)[:rank]
        for f, rank in zip(pair.factors, (4, 3), strict=True)
    ])  # fmt: skip
    got = np.linalg.svd(delta("tsv", pair), compute_uv=False)
    np.testing.assert_allclose(got[:7], np.sort(values)[::-1], rtol=1e-4)


def test_tsv_of_orthogonal_loras_is_their_sum() -> None:
    content = random_factors(3, 20, 10, seed=1)
    style = random_factors(3, 20, 10, seed=2)
    wide = ModulePair(
        LoraFactors(torch.cat([content.down, torch.zeros(3, 20)], 1),
                    torch.cat([content.up, torch.zeros(10, 3)])),
        LoraFactors(torch.cat([torch.zeros(3, 20), style.down], 1),
                    torch.cat([torch.zeros(10, 3), style.up])),
    )  # fmt: skip
    assert_close(delta("tsv", wide), dense(wide.content) + dense(wide.style))


def test_tsv_of_a_lora_with_itself_stays_finite() -> None:
    factors = random_factors(4, 40, 30)
    got = delta("tsv", ModulePair(factors, factors))
    assert np.isfinite(got).all() and np.linalg.norm(got) > 0


def test_block_masks_keep_the_sources_bits() -> None:
    pair = make_pair()
    sources = MergedLoRA({NAME: pair, OTHER: pair})
    merged, (line,) = METHODS["block_masks"](sources, MergeSettings(blocks=PRESETS["b_lora"]))
    assert merged.pairs[NAME].style is None and merged.pairs[OTHER].content is None
    content, style = merged.pairs[NAME].content, merged.pairs[OTHER].style
    assert content and style and pair.content and pair.style
    assert torch.equal(content.down, pair.content.down) and torch.equal(style.up, pair.style.up)
    assert line == "kept of ‖delta‖² in the UNet: content 50%, style 50%"


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
