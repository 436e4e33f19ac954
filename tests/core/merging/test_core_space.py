"""Merges in the space of both LoRAs, against `peft` and dense formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from peft.utils import merge_utils

from ziplora_core.lora.factors import LoraFactors
from ziplora_core.lora.merged import MergedLoRA
from ziplora_core.lora.pair import ModulePair
from ziplora_core.merging import METHODS, MergeSettings
from ziplora_core.merging.core_space import common_basis

from ..lora.factors import random_factors
from .merge_task import KERNELS, NAME, assert_close, delta, dense, make_pair


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


def lines_of(method: str, pair: ModulePair) -> list[str]:
    return METHODS[method](MergedLoRA({NAME: pair}), MergeSettings())[1]


def test_tsv_counts_the_directions_that_both_loras_have() -> None:
    content = random_factors(4, 40, 30)
    style = LoraFactors(content.down[:2].clone(), content.up[:, :2].clone())
    assert lines_of("tsv", make_pair())[0].startswith("0 of 7 directions")
    assert lines_of("tsv", ModulePair(content, content))[0].startswith("4 of 8 directions")
    assert lines_of("tsv", ModulePair(content, style))[0].startswith("2 of 6 directions")


@pytest.mark.parametrize("method", ["ties", "knots"])
def test_directions_of_equal_weight_are_warned_of(method: str) -> None:
    up, down = torch.linalg.qr(torch.randn(30, 8)).Q, torch.linalg.qr(torch.randn(40, 8)).Q.T
    alike = ModulePair(LoraFactors(down[:4], up[:, :4]), LoraFactors(down[4:], up[:, 4:]))
    assert lines_of(method, alike)[0].startswith("WARNING: 1 modules have directions of equal")
    assert not any("WARNING" in line for line in lines_of(method, make_pair()))


@pytest.mark.parametrize("method", ["null_space", "norm_balance", "ties", "knots", "tsv"])
def test_a_merge_says_how_far_it_is_and_can_be_cancelled(method: str) -> None:
    sources = MergedLoRA({NAME: make_pair(), "other": make_pair()})
    told = []
    METHODS[method](sources, MergeSettings(on_module=lambda *done: told.append(done)))
    assert told == [(0, 2), (1, 2)]

    def cancel(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        METHODS[method](sources, MergeSettings(on_module=cancel))
