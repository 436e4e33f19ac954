"""The quality run's measurements of sliders, against NumPy and values by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from miniworld.gauge import load_gauge
from miniworld.scenes import Scene, render
from miniworld.styles import Style
from quality.sliders.attributes import ATTRIBUTES, BRIGHTNESS, PAIRS, SHOWN, Attribute
from quality.sliders.measure import SEEDS, between_seeds, others, rises, value


def test_a_slider_rises_by_the_mean_rank_correlation_of_its_pictures() -> None:
    scales, values = (-2.0, -1.0, 0.0, 1.0, 2.0), torch.randn(5, 7)
    squares = (values.argsort(0).argsort(0) - torch.arange(5)[:, None]).square().sum(0)
    want = 1 - 6 * squares / (5 * (5**2 - 1))  # Spearman (1904), of distinct values
    assert rises(scales, values) == pytest.approx(float(want.mean()), abs=1e-6)
    rising = torch.tensor(scales)[:, None].exp().expand(-1, 3)
    assert rises(scales, rising) == pytest.approx(1)
    assert rises(scales, -rising) == pytest.approx(-1)


def test_between_seeds_leaves_out_what_differs_between_prompts() -> None:
    prompts = torch.tensor([[0.0], [10.0], [20.0], [30.0]])
    seeds = torch.tensor([-1.0, -1.0, 1.0, 1.0])
    assert between_seeds((prompts + seeds).flatten()) == pytest.approx((4 / (SEEDS - 1)) ** 0.5)


@pytest.mark.parametrize(
    ("attribute", "before", "after"),
    [("stretch", 0.0, 0.5), ("stretch", 0.0, -0.8), ("brightness", 0.2, 0.6), ("radius", 0.4, 0.6)],
)
def test_value_follows_the_scene(attribute: str, before: float, after: float) -> None:
    found = [
        value(
            attribute,
            torch.stack(
                [
                    render(replace(Scene(subject, Style(*style.split())), **{attribute: of}))
                    for subject, style in SHOWN.items()
                    for _ in range(SEEDS)
                ]
            ),
        )
        for of in (before, after)
    ]
    if attribute == "stretch":
        torch.testing.assert_close(found[1] - found[0], torch.full((16,), after), atol=0.05, rtol=0)
    elif attribute == "radius":
        torch.testing.assert_close(found[1] / found[0], torch.full((16,), 1.5), atol=0.1, rtol=0)
    else:
        assert all(found[1] > found[0])


def test_others_are_all_named_factors_but_the_slider_s_own() -> None:
    assert others({"brightness": 9, "subject": 1, "radius": 3, "stretch": 9}, "brightness") == 2


def test_editing_puts_the_word_before_the_subject() -> None:
    assert BRIGHTNESS.edited("a star in ocean plain style") == (
        "a very dark star in ocean plain style",
        "a very bright star in ocean plain style",
    )


@pytest.mark.parametrize("attribute", ATTRIBUTES, ids=lambda a: a.name)
def test_pairs_differ_in_their_attribute_as_the_gauge_sees_it(attribute: Attribute) -> None:
    low, high = (pictures.movedim(-1, 1) for pictures in attribute.pictures(2.0))
    assert low.shape == high.shape == (PAIRS, 3, 128, 128)
    with torch.no_grad():
        change = load_gauge()(high)[attribute.name] - load_gauge()(low)[attribute.name]
    assert float(change.mean()) == pytest.approx(attribute.ends[1] - attribute.ends[0], rel=0.3)
    assert all(change > 0)
