"""Merge methods against their formulas on dense updates, in numpy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch

from ziplora_core.errors import ZipLoRAError
from ziplora_core.lora.factors import LoraFactors
from ziplora_core.lora.merged import MergedLoRA
from ziplora_core.lora.pair import ModulePair
from ziplora_core.merging import METHODS, MergeSettings

from ..lora.factors import random_factors

Matrix = npt.NDArray[np.float64]
KERNELS = [0, 3]
TEXT = "lora_te1_text_model_encoder_layers_0_mlp_fc1"


def make_pair(kernel: int = 0, ranks: tuple[int, int] = (4, 4)) -> ModulePair:
    return ModulePair(
        random_factors(ranks[0], 40, 30, kernel, alpha=2.0, seed=1),
        random_factors(ranks[1], 40, 30, kernel, alpha=-6.0, seed=2),
    )


def sources(**pairs: ModulePair) -> MergedLoRA:
    """A LoRA pair with one UNet module per entry, and one of the text encoder."""
    return MergedLoRA(
        {f"lora_unet_{name}": pair for name, pair in pairs.items()},
        text_encoder={TEXT: make_pair()},
        metadata={"ziplora.method": "x"},
    )


def halves(factors: LoraFactors | None) -> tuple[Matrix, Matrix, float]:
    """up `(out, r)`, down `(r, in·k)` and scale."""
    assert factors is not None
    up, down = factors.up.flatten(1), factors.down.flatten(1)
    return up.double().numpy(), down.double().numpy(), factors.scale


def dense(factors: LoraFactors | None) -> Matrix:
    up, down, scale = halves(factors)
    return scale * up @ down


def deltas(merged: MergedLoRA) -> dict[str, Matrix]:
    return {name: dense(factors) for name, factors in merged.modules().items()}


def assert_close(got: Matrix, want: Matrix, limit: float = 1e-5) -> None:
    assert np.linalg.norm(got - want) <= limit * np.linalg.norm(want)


def relative(got: Matrix, want: Matrix) -> float:
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))


@pytest.mark.parametrize("kernel", KERNELS)
def test_direct_equals_the_weighted_sum_and_stays_separable(kernel: int) -> None:
    pair = make_pair(kernel, (4, 3))
    merged, lines = METHODS["direct"](sources(a=pair), MergeSettings(0.7, -1.3))
    assert merged.separable and lines == [] and merged.metadata["ziplora.method"] == "x"
    got = deltas(merged)
    assert_close(got["lora_unet_a"], 0.7 * dense(pair.content) - 1.3 * dense(pair.style))
    text = make_pair()
    assert_close(got[TEXT], 0.7 * dense(text.content) - 1.3 * dense(text.style))


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("rank", [0, 1, 5, 7, 99])
def test_svd_equals_the_first_singular_directions_of_the_sum(kernel: int, rank: int) -> None:
    pair = make_pair(kernel, (4, 3))
    merged, (line,) = METHODS["svd"](sources(a=pair), MergeSettings(0.7, 1.3, rank))
    want = 0.7 * dense(pair.content) + 1.3 * dense(pair.style)
    u, s, vh = np.linalg.svd(want, full_matrices=False)
    kept = min(rank or 7, 7)
    factors = merged.pairs["lora_unet_a"].content
    assert factors is not None and factors.rank == kept and not merged.separable
    assert_close(dense(factors), (u[:, :kept] * s[:kept]) @ vh[:kept])
    up, down, _ = halves(factors)
    np.testing.assert_allclose(np.linalg.norm(up, axis=0) ** 2, s[:kept], rtol=1e-4)
    np.testing.assert_allclose(np.linalg.norm(down, axis=1) ** 2, s[:kept], rtol=1e-4)
    assert ("relative error 0.00%" in line) == (rank in (0, 99))


def test_svd_reports_the_error_over_all_modules() -> None:
    source = sources(a=make_pair(), b=make_pair(3))
    merged, (line,) = METHODS["svd"](source, MergeSettings(rank=2))
    exact = deltas(source)
    lost = sum(np.linalg.norm(d - exact[n]) ** 2 for n, d in deltas(merged).items())
    total = sum(np.linalg.norm(d) ** 2 for d in exact.values())
    assert f"relative error {(lost / total) ** 0.5:.2%}" in line


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("weights", [(1.0, 1.0), (3.0, 1.0), (1.0, -0.5), (0.3, 0.7)])
def test_factor_average_equals_its_formula(kernel: int, weights: tuple[float, float]) -> None:
    pair = make_pair(kernel)
    merged, lines = METHODS["factor_average"](sources(a=pair), MergeSettings(*weights))
    a, b = weights[0] / sum(weights), weights[1] / sum(weights)
    (up_c, down_c, scale_c), (up_s, down_s, scale_s) = (halves(f) for f in pair.factors)
    root_c, root_s = abs(scale_c) ** 0.5, abs(scale_s) ** 0.5
    up = a * np.sign(scale_c) * root_c * up_c + b * np.sign(scale_s) * root_s * up_s
    down = a * root_c * down_c + b * root_s * down_s
    factors = merged.pairs["lora_unet_a"].content
    assert factors is not None and factors.rank == 4 and factors.down.ndim == (4 if kernel else 2)
    assert_close(dense(factors), up @ down)
    cross = up_c @ down_s * np.sign(scale_c) + up_s @ down_c * np.sign(scale_s)
    want = a**2 * dense(pair.content) + b**2 * dense(pair.style) + a * b * root_c * root_s * cross
    assert_close(dense(factors), want)
    assert not merged.separable and "not the sum" in lines[0]
    assert ("unlike cloneofsimo's lpl" in lines[-1]) is (sum(weights) != 1)
    assert not any(p.style for p in (*merged.pairs.values(), *merged.text_encoder.values()))


@pytest.mark.parametrize("alpha", [None, 2.0, -8.0])
def test_factor_average_of_a_lora_with_itself_is_the_lora(alpha: float | None) -> None:
    factors = random_factors(4, 40, 30, alpha=alpha)
    merged, _ = METHODS["factor_average"](
        MergedLoRA({"lora_unet_a": ModulePair(factors, factors)}), MergeSettings(1.0, 1.0)
    )
    assert_close(deltas(merged)["lora_unet_a"], dense(factors))


def test_factor_average_of_two_independent_loras_is_far_from_their_average() -> None:
    """The published facts: cosine 0.70 with the true average, relative error 71 %."""
    pair = ModulePair(random_factors(4, 640, 640, seed=1), random_factors(4, 640, 640, seed=2))
    merged, _ = METHODS["factor_average"](MergedLoRA({"lora_unet_a": pair}), MergeSettings())
    got = deltas(merged)["lora_unet_a"]
    average = (dense(pair.content) + dense(pair.style)) / 2
    cosine = (got * average).sum() / np.linalg.norm(got) / np.linalg.norm(average)
    assert cosine == pytest.approx(0.70, abs=0.02)
    assert relative(got, average) == pytest.approx(0.71, abs=0.02)


def test_factor_average_rank_reduces_the_average() -> None:
    settings = MergeSettings(rank=2)
    full, _ = METHODS["factor_average"](sources(a=make_pair()), MergeSettings())
    merged, lines = METHODS["factor_average"](sources(a=make_pair()), settings)
    s = np.linalg.svd(deltas(full)["lora_unet_a"], compute_uv=False)
    error = relative(deltas(merged)["lora_unet_a"], deltas(full)["lora_unet_a"])
    assert error == pytest.approx(np.linalg.norm(s[2:]) / np.linalg.norm(s), rel=1e-4)
    assert "reduced to rank 2" in lines[1]


def test_factor_average_weights_that_sum_to_zero_are_refused() -> None:
    with pytest.raises(ZipLoRAError, match=r"found 0\.3 and -0\.3, which sum to 0.*method=direct"):
        METHODS["factor_average"](sources(a=make_pair()), MergeSettings(0.3, -0.3))


def test_factor_average_unequal_modules_or_ranks_are_refused_by_name() -> None:
    alone = ModulePair(content=make_pair().content)
    message = r"2 of 4 modules that differ, e\.g\. lora_unet_b: rank 4 \(content\) and 3 \(style\)"
    with pytest.raises(ZipLoRAError, match=message) as refused:
        METHODS["factor_average"](
            sources(a=make_pair(), b=make_pair(ranks=(4, 3)), c=alone), MergeSettings()
        )
    assert "Resize LoRA" in str(refused.value)
    with pytest.raises(ZipLoRAError, match=r"rank 4 \(content\) and missing \(style\)"):
        METHODS["factor_average"](sources(a=make_pair(), c=alone), MergeSettings())


@pytest.mark.parametrize("method", METHODS)
def test_methods_leave_their_sources_as_they_are(method: str) -> None:
    pair = make_pair()
    before = [(f.down.clone(), f.up.clone()) for f in pair.factors if f]
    METHODS[method](sources(a=pair), MergeSettings(0.5, 2.0, 2))
    for factors, (down, up) in zip(pair.factors, before, strict=True):
        assert factors and torch.equal(factors.down, down) and torch.equal(factors.up, up)
