"""SSR-Merge against least squares by NumPy, and its limits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ziplora_core.lora.factors import LoraFactors
from ziplora_core.lora.merged import MergedLoRA, join
from ziplora_core.lora.norms import kept_norm_lines
from ziplora_core.lora.pair import ModulePair
from ziplora_core.merging import METHODS, MergeSettings, merge
from ziplora_core.merging.rank_moments import RIDGE, RankCalibration, RankMoments
from ziplora_core.training.branches import Gates

from ..lora.factors import ToyModel, random_factors
from .merge_task import KERNELS, NAME, Matrix, assert_close, dense, make_pair
from .rank_task import columns_of, draw_inputs, make_layer, seen, seen_by_default


def orthogonal_pair() -> ModulePair:
    """Two updates of one strength whose outputs have nothing in common."""
    up = torch.linalg.qr(torch.randn(30, 8, generator=torch.Generator().manual_seed(3))).Q
    down = torch.linalg.qr(torch.randn(40, 4, generator=torch.Generator().manual_seed(4))).Q.T
    return ModulePair(LoraFactors(down, up[:, :4]), LoraFactors(down.clone(), up[:, 4:]))


def merged_with(moments: RankMoments, pair: ModulePair, **settings: float) -> MergedLoRA:
    sources = MergedLoRA({NAME: pair})
    return METHODS["rank_space"](sources, MergeSettings(moments={NAME: moments}, **settings))[0]


def delta(moments: RankMoments, pair: ModulePair, **settings: float) -> Matrix:
    return dense(merged_with(moments, pair, **settings).modules()[NAME])


def routed(moments: RankMoments, ridge: float) -> Matrix:
    """The merge at a ridge of one's own."""
    router = moments.router(ridge)
    assert router is not None
    both = join(moments.pair)
    assert both is not None
    up, down = both.up.flatten(1).double(), both.down.flatten(1).double()
    return (up @ router @ down).numpy()


def direct(pair: ModulePair) -> Matrix:
    return dense(pair.content) + dense(pair.style)


def least_squares(
    pair: ModulePair, weights: tuple[float, float], content: Tensor, style: Tensor, joint: Tensor
) -> Matrix:
    """min_Y Σ_k mean ‖Y z − target‖² by lstsq on the tokens themselves, with the ridge as rows."""
    balanced = RankMoments(pair).pair
    both = join(balanced, strengths=weights)
    assert both is not None
    up, down = both.up.flatten(1).double().numpy(), join(balanced)
    assert down is not None
    down = down.down.flatten(1).double().numpy()
    halves = [w * dense(f) for w, f in zip(weights, pair.factors, strict=True)]
    rows, targets = [], []
    for x, wanted in ((content, halves[0]), (style, halves[1]), (joint, halves[0] + halves[1])):
        columns = columns_of(pair, x).numpy()
        columns /= columns.shape[1] ** 0.5
        rows.append((down @ columns).T)
        targets.append((wanted @ columns).T)
    root = (RIDGE * np.mean(sum((z**2).sum(0) for z in rows))) ** 0.5
    rows.append(root * np.eye(len(down)))
    targets.append(root * up.T)
    solved = np.linalg.lstsq(np.concatenate(rows), np.concatenate(targets), rcond=None)[0]
    return solved.T @ down


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("weights", [(1.0, 1.0), (0.4, -1.7)])
def test_rank_space_equals_least_squares(kernel: int, weights: tuple[float, float]) -> None:
    pair = make_pair(kernel)
    content, style, joint = (draw_inputs(pair, seed) for seed in (1, 2, 3))
    moments = seen(pair, [content], [style], [joint])
    got = delta(moments, pair, content_weight=weights[0], style_weight=weights[1])
    assert_close(got, least_squares(pair, weights, content, style, joint), 1e-4)


def test_rank_space_errs_less_on_its_own_tokens_than_sum_and_average() -> None:
    pair = make_pair()
    inputs = [draw_inputs(pair, seed) for seed in (1, 2)]
    errors = []
    for merged in (routed(seen(pair, inputs[:1], inputs[1:]), 0.0), direct(pair), direct(pair) / 2):
        errors.append(sum(
            np.square((merged - dense(factors)) @ columns_of(pair, x).numpy()).mean()
            for factors, x in zip(pair.factors, inputs, strict=True)
        ))  # fmt: skip
    assert errors[0] < min(errors[1:])


@pytest.mark.parametrize("kernel", KERNELS)
def test_large_ridge_and_large_joint_weight_give_the_sum(kernel: int) -> None:
    pair = make_pair(kernel)
    content, style, joint = ([draw_inputs(pair, seed)] for seed in (1, 2, 3))
    assert_close(routed(seen(pair, content, style), 1e9), direct(pair))
    anchored = seen(pair, content, style, joint, joint_weight=1e7)
    assert_close(routed(anchored, 0.0), direct(pair), 1e-3)


@pytest.mark.parametrize("joint_weight", [0.0, 1.0, 2.0, 10.0])
def test_alike_inputs_give_the_average_and_the_joint_anchor_holds_more(joint_weight: float) -> None:
    pair, x = make_pair(), [draw_inputs(make_pair(), 1)]
    moments = seen(pair, x, x, x, joint_weight)
    router = moments.router(0.0)
    assert router is not None
    share = (1 + joint_weight) / (2 + joint_weight)
    torch.testing.assert_close(router, share * torch.eye(7, dtype=router.dtype), atol=1e-3, rtol=0)
    assert_close(routed(moments, 0.0), share * direct(pair), 1e-3)


def test_average_like_merge_says_so() -> None:
    pair, x = orthogonal_pair(), [draw_inputs(make_pair(), 1)]
    sources = MergedLoRA({NAME: pair})
    for joint, share in (([], 0.5), (x, 2 / 3)):
        moments = seen(pair, x, x, joint)
        router = moments.router(0.0)
        assert router is not None
        assert moments.reproduced(router) == pytest.approx(share, abs=1e-3)
        merged, lines = METHODS["rank_space"](sources, MergeSettings(moments={NAME: moments}))
        assert lines[0].startswith("tr(Router)/R: mean 0.")
        assert any(line.startswith("average-like") for line in lines) is (share == 0.5)
        assert "‖merged‖ / ‖direct‖" in kept_norm_lines(merged, sources)[0]


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_is_reproduced_is_the_error_on_the_tokens_themselves(kernel: int) -> None:
    pair = make_pair(kernel)
    content, style, joint = (draw_inputs(pair, seed) for seed in (1, 2, 3))
    moments = seen(pair, [content], [style], [joint])
    router = moments.router()
    assert router is not None
    lost = total = 0.0
    for x, wanted in (
        (content, dense(pair.content)),
        (style, dense(pair.style)),
        (joint, direct(pair)),
    ):
        columns = columns_of(pair, x).numpy()
        lost += np.square((delta(moments, pair) - wanted) @ columns).sum(0).mean()
        total += np.square(wanted @ columns).sum(0).mean()
    assert moments.reproduced(router) == pytest.approx(1 - lost / total, abs=1e-4)


@pytest.mark.parametrize("kernel", KERNELS)
def test_moments_add_up_in_any_order(kernel: int) -> None:
    pair = make_pair(kernel)
    content, style = ([draw_inputs(pair, seed) for seed in seeds] for seeds in ((1, 2), (3, 4)))
    together = seen(pair, content, style)
    first, second = (seen(pair, content[i : i + 1], style[i : i + 1]) for i in range(2))
    torch.testing.assert_close(together.gram, first.gram + second.gram)
    torch.testing.assert_close(together.cross, first.cross + second.cross)
    other = seen(pair, content[::-1], style[::-1])
    assert_close(delta(other, pair), delta(together, pair), 1e-6)


def test_swapping_the_loras_with_what_they_see_changes_nothing() -> None:
    pair = make_pair()
    content, style = ([draw_inputs(pair, seed)] for seed in (1, 2))
    swapped = ModulePair(pair.style, pair.content)
    assert_close(
        delta(seen(swapped, style, content), swapped), delta(seen(pair, content, style), pair)
    )


@pytest.mark.parametrize("kernel", KERNELS)
def test_strengths_after_the_merge_equal_weights_before_it(kernel: int) -> None:
    pair = make_pair(kernel)
    moments = seen_by_default(pair)
    for content, style in ((0.6, -1.4), (3.0, 0.1)):
        after = dense(merged_with(moments, pair).modules(content, style)[NAME])
        assert_close(after, delta(moments, pair, content_weight=content, style_weight=style))


def test_rank_is_that_of_both_and_the_content_comes_first() -> None:
    pair = make_pair()
    merged = merged_with(seen_by_default(pair), pair)
    assert merged.separable and [f and f.rank for f in merged.pairs[NAME].factors] == [4, 3]


def test_directions_that_no_token_excites_keep_the_sum() -> None:
    pair = make_pair()
    moments = seen(pair, [torch.ones(1, 1, 40)], [torch.ones(1, 1, 40)])
    excited = moments.down.sum(1, dtype=torch.float64)[None].numpy()
    unseen = np.linalg.svd(excited)[2][1:].T
    router = moments.router()
    assert router is not None
    np.testing.assert_allclose(router.numpy() @ unseen, unseen, atol=1e-6)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_module_without_usable_moments_is_joined_directly_and_named(value: float) -> None:
    pair = make_pair()
    for moments in (seen(pair, [torch.full((1, 30, 40), value)]), RankMoments(pair), None):
        settings = MergeSettings(0.5, 2.0, moments={NAME: moments} if moments else {})
        merged, (line,) = METHODS["rank_space"](MergedLoRA({NAME: pair}), settings)
        assert line.startswith("WARNING: 1 modules without usable activations") and NAME in line
        assert_close(
            dense(merged.modules()[NAME]), 0.5 * dense(pair.content) + 2 * dense(pair.style)
        )


def test_singular_moments_stay_finite() -> None:
    factors = random_factors(4, 40, 30)
    pair = ModulePair(factors, factors)
    moments = seen(pair, [torch.ones(1, 5, 40)], [torch.ones(1, 5, 40)])
    got = delta(moments, pair)
    assert np.isfinite(got).all()
    assert moments.router(0.0) is None or np.isfinite(routed(moments, 0.0)).all()


def test_a_module_of_one_lora_stays_as_it_is() -> None:
    pair = ModulePair(style=make_pair().style)
    moments = seen(pair, [draw_inputs(pair, 1)], [draw_inputs(pair, 2)])
    assert_close(delta(moments, pair, style_weight=3.0), 3 * dense(pair.style))


def test_inputs_are_not_changed() -> None:
    pair = make_pair()
    before = [t.clone() for f in pair.factors if f for t in (f.down, f.up)]
    moments = seen_by_default(pair)
    gram = moments.gram.clone()
    merged_with(moments, pair, rank=2)
    merge("direct", MergedLoRA({NAME: pair}), MergeSettings(rank=2, moments={NAME: moments}))
    assert torch.equal(gram, moments.gram)
    assert all(
        torch.equal(a, b)
        for a, b in zip(before, [t for f in pair.factors if f for t in (f.down, f.up)], strict=True)
    )


def test_collector_counts_every_layer_of_a_model_for_the_concept_whose_turn_it_is() -> None:
    pairs = {
        name: ModulePair(random_factors(2, 8, 8, seed=seed), random_factors(3, 8, 8, seed=seed + 1))
        for name, seed in (("a", 1), ("b", 3), ("never runs", 5))
    }
    counted = RankCalibration(pairs)
    ran = {name: counted.branches[name] for name in ("a", "b")}
    model = ToyModel(ran, 8)
    x = torch.randn(6, 8, 1, 1)
    with model.recording(counted.record):
        for concept in (0, 1):
            counted.concept = concept
            row = torch.eye(2)[concept].expand(6, -1)
            model.denoise(x, torch.ones(6), [torch.zeros(8)] * 6, Gates(row))
    assert [m.usable for m in counted.moments.values()] == [True, True, False]
    first = counted.moments["a"]
    torch.testing.assert_close(first.cross, first.gram / 2)  # both see the same in the first layer
    second = counted.moments["b"]
    assert (second.cross - second.gram / 2).norm() > 0.01 * second.gram.norm()


def test_convolution_is_seen_with_its_stride_and_padding() -> None:
    pair = make_pair(3)
    x = draw_inputs(pair, 1)
    assert make_layer(pair)(x).shape[-1] == 4
    moments = seen(pair, [x])
    columns = columns_of(pair, x).numpy()
    down = moments.down.flatten(1).double().numpy()
    want = down @ columns @ columns.T @ down.T / columns.shape[1]
    np.testing.assert_allclose(moments.gram, want, rtol=1e-3, atol=1e-3 * abs(want).max())
