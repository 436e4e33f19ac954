"""Figures have the size and the colours asked for, and show their data."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from ziplora_core.lora.factors import LoraFactors
from ziplora_core.lora.merged import LayerCosine
from ziplora_core.lora.pruning import count_entries
from ziplora_core.plots import (
    DARK,
    LIGHT,
    THEMES,
    Theme,
    coefficient_histograms,
    entries_histogram,
    grid,
    layer_cosines_chart,
    loss_curves,
    table,
)
from ziplora_core.plots.style import Pixels, rgb
from ziplora_core.ziplora.closed_form import BY_PASS


def test_loss_curves_has_the_size_and_draws_each_term() -> None:
    history = {
        "loss": [1.0, 0.5],
        "content": [0.6, 0.3],
        "style": [0.4, 0.2],
        "penalty": [0.0, 0.0],
    }
    picture = loss_curves(history, steps=100)
    assert picture.shape == (320, 512, 3) and picture.dtype == np.uint8
    colours = {tuple(c) for c in picture.reshape(-1, 3).tolist()}
    assert (0x4C, 0xC2, 0xFF) in colours and (0xFF, 0x9F, 0x43) in colours
    assert (0x9B, 0x8C, 0xFF) not in colours  # a penalty of zero is not drawn


def test_loss_curves_leave_out_a_dip_and_draw_a_few_values_as_they_are() -> None:
    losses = [0.1 + n % 3 for n in range(40)]
    shallow, deep = (loss_curves({"loss": [dip, *losses[1:]]}, 40) for dip in (1e-4, 1e-12))
    assert np.array_equal(shallow[:, 310:], deep[:, 310:])
    assert not np.array_equal(shallow, loss_curves({"loss": losses}, steps=40))
    for odd in (float("inf"), float("nan")):
        assert loss_curves({"loss": [odd, 1.0, 1e-9]}, steps=3).shape == (320, 512, 3)
    jump = loss_curves({"loss": [1.0, 1.0, 0.01]}, steps=3)
    ends = [row for row in range(320) if (jump[row, 440:] == rgb(DARK.other)).all(1).any()]
    assert max(ends) > 240  # no mean, which would end at 0.67


def test_errors_of_the_closed_form_have_whole_passes_and_a_linear_axis() -> None:
    errors = [1.0, 0.5, 0.25]
    picture = loss_curves({"loss": errors, BY_PASS: errors}, steps=3)
    assert not np.array_equal(picture, loss_curves({"loss": errors}, steps=3))
    same = loss_curves({"loss": errors, BY_PASS: errors}, steps=300)
    assert np.array_equal(picture, same), "the axis ends at the last pass"
    assert loss_curves({BY_PASS: [1.0, float("nan")]}, steps=2).shape == (320, 512, 3)


def test_loss_curves_without_steps_is_an_empty_chart() -> None:
    assert loss_curves({}, steps=0).shape == (320, 512, 3)


@pytest.mark.parametrize("theme", THEMES.values(), ids=THEMES)
def test_theme_colours_have_the_contrast_that_text_needs(theme: Theme) -> None:
    ground = luminance(theme.ground)
    for colour in (theme.ink, theme.content, theme.style, theme.penalty, theme.other):
        light, dark = sorted((ground, luminance(colour)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, colour


@pytest.mark.parametrize(("name", "theme"), THEMES.items(), ids=THEMES)
def test_theme_has_the_colours_of_the_page(name: str, theme: Theme) -> None:
    source = (Path(__file__).resolve().parents[3] / "js" / "colours.js").read_text(encoding="utf-8")
    curves = source[source.index("export const CURVES") :]
    (line,) = re.findall(rf"^  {name}: \[(.+)\],$", curves, re.MULTILINE)
    ours = [theme.content, theme.style, theme.penalty, theme.other]
    assert re.findall(r"#[0-9a-f]{6}", line)[:4] == ours


def luminance(colour: str) -> float:
    """Relative luminance of sRGB (WCAG 2)."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4
              for v in (channel / 255 for channel in rgb(colour))]  # fmt: skip
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def colours_of(picture: Pixels) -> set[tuple[int, ...]]:
    return {tuple(colour) for colour in np.unique(picture.reshape(-1, 3), axis=0).tolist()}


@pytest.mark.parametrize("theme", THEMES.values(), ids=THEMES)
def test_figures_are_drawn_in_the_theme_and_show_their_data(theme: Theme) -> None:
    content, style = rgb(theme.content), rgb(theme.style)
    generator = torch.Generator().manual_seed(0)
    factors = LoraFactors(
        torch.randn(2, 8, generator=generator), torch.randn(8, 2, generator=generator)
    )
    coefficients = {"m": torch.rand(2, 50, generator=generator)}
    apart = {f"lora_unet_input_blocks_{n}_1_to_q": LayerCosine(0.5, 0.0) for n in (4, 5)}
    figures = {
        "entries": (entries_histogram(count_entries({"m": factors}), theme=theme), {content}),
        "coefficients": (coefficient_histograms(coefficients, theme=theme), {content, style}),
        "none": (coefficient_histograms({}, theme=theme), set()),
        "loss": (loss_curves({"loss": [1.0, 0.5]}, 2, 1024, 640, theme), set()),
    }
    for name, (picture, expected) in figures.items():
        assert picture.shape == (640, 1024, 3), name
        assert tuple(picture[0, 0]) == rgb(theme.ground) and rgb(theme.ink) in colours_of(picture)
        assert expected == {content, style} & colours_of(picture), name
    whole, none = (
        (np.abs(layer_cosines_chart({"m": LayerCosine(0.5, after)}, theme=theme)[:, :, 2] * 1.0
                - content[2]) < 40).sum()
        for after in (0.5, 0.0)
    )  # fmt: skip
    assert whole != none and layer_cosines_chart(apart, theme=theme).shape == (640, 1024, 3)


def test_grid_keeps_every_picture_and_names_both_axes() -> None:
    pictures = torch.rand(2, 3, 32, 40, 3, generator=torch.Generator().manual_seed(0))
    bare = grid(pictures, ["1", "2", "3"])
    drawn = grid(pictures, ["1", "2", "3"], ["a", "b"], "across", "down", LIGHT)
    assert drawn.shape == (2 * 22 + 2 * 36, 2 * 22 + 3 * 44, 3) and bare.shape == (94, 132, 3)
    for r, row in enumerate((pictures * 255).round().to(torch.uint8).numpy()):
        for c, picture in enumerate(row):
            y, x = 44 + r * 36, 44 + c * 44
            assert np.array_equal(drawn[y : y + 32, x : x + 40], picture)
    for band in (drawn[:22, 44:], drawn[22:44, 44:], drawn[44:, :22], drawn[44:, 22:44]):
        assert band.min() < 100  # ink on white
    assert (drawn[:44, :44] == 255).all()


def test_grid_of_large_pictures_has_letters_as_large_at_a_nodes_width() -> None:
    small, large = (grid(torch.zeros(1, 2, 8, side, 3), ["-1", "1"]) for side in (206, 836))
    assert len(small) - 12 == 22 and len(large) - 12 == 22 * 4


def test_table_has_a_row_for_each_and_its_words() -> None:
    rows = [("metric", "cosine"), ("style (CLIP-I)", "0.6990")]
    one, two = table(rows), table([*rows, ("subject", "0.4200")])
    assert one.shape[1] == two.shape[1] == 1024 and len(two) - len(one) == 63
    assert (two[-63:] > 150).any() and tuple(two[0, 0]) == rgb(DARK.ground)
