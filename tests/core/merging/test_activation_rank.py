"""The rank cut by what layers see, against its dense formula and SVD."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from torch import Tensor

from ziplora_core.lora.merged import MergedLoRA, join
from ziplora_core.lora.pair import ModulePair
from ziplora_core.lora.svd import cut_by_activation, truncate
from ziplora_core.merging import METHODS, MergeSettings, merge

from .merge_task import KERNELS, NAME, OTHER, Matrix, assert_close, dense, make_pair
from .rank_task import columns_of, draw_inputs, seen, seen_by_default


def second_moment(pair: ModulePair, inputs: Sequence[Tensor]) -> Matrix:
    """Σ_k E_k[x xᵀ], dense."""
    columns = [columns_of(pair, x).numpy() for x in inputs]
    return np.sum([c @ c.T / c.shape[1] for c in columns], axis=0)


def in_activation_norm(difference: Matrix, second: Matrix) -> float:
    return float(np.trace(difference @ second @ difference.T))


@pytest.mark.parametrize("kernel", KERNELS)
def test_cut_by_activation_equals_its_dense_formula_and_beats_svd(kernel: int) -> None:
    pair, rank = make_pair(kernel), 3
    both = join(pair)
    assert both is not None
    inputs = [draw_inputs(pair, seed) for seed in (1, 2)]
    second = second_moment(pair, inputs)
    values, vectors = np.linalg.eigh(second)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    u, s, _ = np.linalg.svd(dense(both) @ root, full_matrices=False)
    moments = seen(pair, inputs[:1], inputs[1:])
    part, plain = cut_by_activation(both, rank, moments.seen_by(both))
    want = u[:, :rank] @ u[:, :rank].T @ dense(both)
    assert_close(dense(part.factors), want, 1e-4)
    assert part.factors.rank == rank and part.factors.down.shape[1:] == both.down.shape[1:]
    assert part.lost == pytest.approx((s[rank:] ** 2).sum(), rel=1e-3)
    assert part.total == pytest.approx((s**2).sum(), rel=1e-4)
    svd = dense(truncate(both, rank).factors)
    assert plain == pytest.approx(in_activation_norm(svd - dense(both), second), rel=1e-3)
    assert part.lost < 0.9 * plain


def test_ridge_of_the_cut_leads_to_plain_svd() -> None:
    pair = make_pair()
    both = join(pair)
    assert both is not None
    seen_by = seen_by_default(pair).seen_by(both)
    part, plain = cut_by_activation(both, 3, seen_by, ridge=1e9)
    assert_close(dense(part.factors), dense(truncate(both, 3).factors), 1e-4)
    assert part.lost == pytest.approx(plain)
    lost = [cut_by_activation(both, 3, seen_by, ridge)[0].lost for ridge in (0.0, 0.1, 10.0)]
    assert all(a <= b * (1 + 1e-9) for a, b in pairwise(lost))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_is_cut_by_what_layers_see(method: str) -> None:
    pair = make_pair(ranks=(4, 4))
    inputs = [draw_inputs(pair, seed) for seed in (1, 2)]
    second = second_moment(pair, inputs)
    sources = MergedLoRA(
        {NAME: pair, OTHER: make_pair(ranks=(4, 4), seed=7)},
        text_encoder={"lora_te1_x": make_pair(ranks=(4, 4), seed=5)},
    )
    settings = MergeSettings(moments={NAME: seen(pair, inputs[:1], inputs[1:])})
    full = METHODS[method](sources, settings)[0].modules()
    cut, lines = merge(method, sources, replace(settings, rank=2))
    plain = METHODS[method](sources, replace(settings, rank=2))[0].modules()
    assert all(f.rank == 2 for f in cut.modules().values()) and not cut.separable
    assert (
        "reduced to rank 2 by the activations of 1 modules" in lines[-1]
        and "plain SVD" in lines[-1]
    )
    for name in (OTHER, "lora_te1_x"):
        assert_close(dense(cut.modules()[name]), dense(plain[name]))
    ours, theirs = (
        in_activation_norm(dense(part[NAME]) - dense(full[NAME]), second)
        for part in (cut.modules(), plain)
    )
    assert ours <= theirs * (1 + 1e-6)


def test_rank_that_is_not_lower_changes_nothing() -> None:
    pair = make_pair()
    settings = MergeSettings(rank=7, moments={NAME: seen_by_default(pair)})
    merged, lines = merge("direct", MergedLoRA({NAME: pair}), settings)
    assert merged.separable and lines == ["no module has more than rank 7: exact"]
