"""Amounts of two LoRAs in a picture: the least squares, its scale, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ziplora_core.errors import ZipLoRAError
from ziplora_core.plots.judge import Amounts, Judged, calibrate_gauge, fit_amounts, judged_rows
from ziplora_core.plots.tables import csv_text

SHAPE = (4, 4, 8, 8)


def random(seed: int) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def test_fit_of_a_mixture_gives_its_parts() -> None:
    base, content, style = random(0), random(1), random(2)
    mixed = base + 0.3 * (content - base) + 0.7 * (style - base)
    before = [t.clone() for t in (mixed, base, content, style)]
    found = fit_amounts(mixed, base, content, style)
    assert (found.content, found.style) == pytest.approx((0.3, 0.7), abs=1e-6)
    after = (mixed, base, content, style)
    assert all(torch.equal(t, old) for t, old in zip(after, before, strict=True))


def test_fit_is_torchs_least_squares_over_all_draws_and_places() -> None:
    noise, base, content, style = (random(seed) for seed in range(4))
    style = 0.9 * content + 0.1 * style  # far from orthogonal
    found = fit_amounts(noise, base, content, style)
    columns = torch.stack([(content - base).flatten(), (style - base).flatten()], dim=1)
    wanted = torch.linalg.lstsq(columns.double(), (noise - base).double().flatten()[:, None])
    assert [found.content, found.style] == pytest.approx(wanted.solution[:, 0].tolist(), rel=1e-5)


@pytest.mark.parametrize(
    ("predictions", "words"),
    [
        ((1, 0, 0), "pair: found a content LoRA whose predictions are those of the base model"),
        ((1, 1, 0), "pair: found a style LoRA whose predictions are those of the base model"),
        ((1, 1, 1), "pair: found two LoRAs that change the prediction in the same direction"),
        ((1, 1, float("nan")), "model: found predictions with NaN or infinity"),
    ],
)
def test_fit_without_a_solution_is_refused_by_name(
    predictions: tuple[float, float, float], words: str
) -> None:
    size, content, style = predictions
    base, change = size * random(0), random(1)
    with pytest.raises(ZipLoRAError) as error:
        fit_amounts(random(2), base, base + content * change, base + 2 * style * change)
    assert words in str(error.value)


def test_gauge_scores_the_base_zero_and_each_lora_alone_one() -> None:
    base = [Amounts(0.1, 0.3), Amounts(0.3, 0.1)]
    content = [Amounts(0.6, 0.0), Amounts(0.8, 0.0)]
    style = [Amounts(0.0, 0.5), Amounts(0.0, 0.7)]
    gauge = calibrate_gauge(base, content, style)
    for pictures, wanted in ((base, (0, 0)), (content, (1, None)), (style, (None, 1))):
        for n, want in enumerate(wanted):
            if want is not None:
                judged = [gauge.judge(p) for p in pictures]
                mean = sum((j.subject, j.style)[n] for j in judged) / len(judged)
                assert mean == pytest.approx(want, abs=1e-12)
    half = gauge.judge(Amounts(0.45, 0.4))
    assert (half.subject, half.style, half.smaller) == pytest.approx((0.5, 0.5, 0.5))
    assert gauge.warnings() == []
    assert "without it -0.20 … 0.20, own 0.80 … 1.20" in gauge.content.describe()


def test_gauge_whose_calibration_overlaps_warns() -> None:
    base, own = [Amounts(0.1, 0.0), Amounts(0.6, 0.1)], [Amounts(0.5, 0.9), Amounts(0.9, 0.8)]
    (warning,) = calibrate_gauge(base, own, own).warnings()
    assert warning.startswith("WARNING: the content LoRA's own pictures")


def test_more_calibration_pictures_do_not_make_the_warning_likelier() -> None:
    rng = torch.Generator().manual_seed(0)

    def warned(pictures: int) -> int:
        spread = torch.randn(200, 2, pictures, generator=rng).double()
        runs = ([[Amounts(a, a) for a in end.tolist()] for end in (run[0], run[1] + 3.5)]
                for run in spread)  # fmt: skip
        return sum(bool(calibrate_gauge(base, own, own).warnings()) for base, own in runs)

    few, many = warned(4), warned(64)
    assert many == 0 and few < 40


def test_gauge_of_one_picture_each_has_no_spread_to_warn_by() -> None:
    base, own = [Amounts(0.1, 0.1)], [Amounts(0.2, 0.2)]
    assert calibrate_gauge(base, own, own).warnings() == []


@pytest.mark.parametrize("lora", ["content", "style"])
def test_gauge_of_a_lora_that_draws_nothing_of_its_own_is_refused(lora: str) -> None:
    base, own = [Amounts(0.2, 0.2)], [Amounts(0.9, 0.9)]
    without = {"content": own, "style": own} | {lora: base}
    with pytest.raises(ZipLoRAError, match=f"positive: .*the {lora} LoRA's own.*trigger word"):
        calibrate_gauge(base, without["content"], without["style"])


def test_rows_are_the_pictures_and_their_mean() -> None:
    rows = judged_rows([Judged(0.25, 0.5), Judged(1.0, 0.0)], {"CLIP-I": [0.5, 0.7]}, digits=2)
    assert csv_text(rows).splitlines() == [
        "picture,subject,style,smaller,CLIP-I",
        "1,0.25,0.50,0.25,0.50",
        "2,1.00,0.00,0.00,0.70",
        "mean,0.62,0.25,0.12,0.60",
    ]
