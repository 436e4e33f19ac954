"""The loss curves are drawn at the size asked for, and show their data."""

from __future__ import annotations

import numpy as np
import torch

from ziplora_core.plots import bars, loss_curves, strip


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
    assert (0x9B, 0x8C, 0xFF) not in colours  # a penalty of zero has no place on a log axis


def test_loss_curves_without_steps_is_an_empty_chart() -> None:
    assert loss_curves({}, steps=0).shape == (320, 512, 3)


def test_strip_puts_pictures_side_by_side_below_the_chart() -> None:
    chart = np.full((100, 100, 3), 7, np.uint8)
    red, blue = torch.zeros(8, 8, 3), torch.zeros(4, 8, 3)
    red[..., 0], blue[..., 2] = 1, 1
    shown = strip(chart, [red, blue])
    assert shown.shape == (100 + 48, 100, 3) and (shown[:100] == 7).all()
    assert (shown[100:, :48] == [255, 0, 0]).all() and not shown[100:, 48:52].any()
    assert (shown[100:124, 52:] == [0, 0, 255]).all() and not shown[124:, 52:].any()
    assert strip(chart, [red]).shape == (150, 100, 3)  # no higher than half the chart
    assert strip(chart, []) is chart


def test_bars_draw_every_value_in_its_height() -> None:
    low = bars({"direct merge": 1.0, "pass 1": 0.1}, "error")
    high = bars({"direct merge": 1.0, "pass 1": 0.9}, "error")
    assert low.shape == high.shape == (320, 512, 3)
    blue = [(picture[..., 2] > 200) & (picture[..., 0] < 120) for picture in (low, high)]
    assert blue[1][:, 256:].sum() > 5 * blue[0][:, 256:].sum() > 0
