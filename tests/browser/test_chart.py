"""The loss curves of a panel: their numbers, their passes, and what ten thousand points cost."""

from __future__ import annotations

import itertools

import pytest
from playwright.sync_api import Page, expect

from .pages import (
    DISPATCH,
    MERGE,
    SET_VUE,
    chart_of,
    contains,
    drop,
    look_at,
    message,
    panel,
    shoot,
)

TICKS = """
    async () => {
        const { distinct, ticks } = await import("/extensions/ziplora/chart_axes.js");
        const found = [];
        for (let low = 1e-6; low < 100; low *= 1.7) {
            for (let more = 0.01; more < 1000; more *= 1.3) {
                for (const logarithmic of [true, false]) {
                    const words = distinct(ticks([low, low * (1 + more)], logarithmic));
                    found.push([words.length, new Set(words).size]);
                }
            }
        }
        return found;
    }
"""
MEAN = """
    async () => {
        const { smooth } = await import("/extensions/ziplora/chart_axes.js");
        const mean = smooth([10, null, ...Array(60).fill(0)]);
        return mean.slice(1).map((value, n) => mean[n] - value);
    }
"""
"""By how much the running mean falls at each value after a single large one."""
ZOOM = "(zoom) => { app.canvas.ds.changeScale(zoom); app.canvas.setDirty(true, true); }"
PIXELS = "(canvas) => canvas.width / canvas.clientWidth / window.devicePixelRatio"
NEXT_MESSAGES = """
    (whole) => {
        const times = [];
        for (let n = 1; n <= 20; n++) {
            const step = whole.step + n;
            const points = { step: [step], loss: [1], content: [1], style: [1] };
            const detail = { ...whole, step, points, after: step - 1 };
            const start = performance.now();
            app.api.dispatchEvent(new CustomEvent('ziplora.training', { detail }));
            times.push(performance.now() - start);
        }
        return times.sort((a, b) => a - b)[10];
    }
"""
TEN_THOUSAND = """
    async () => {
        const { Chart } = await import("/extensions/ziplora/chart.js");
        const { makePanel } = await import("/extensions/ziplora/panel.js");
        const panel = makePanel();
        panel.style.cssText = "position: fixed; left: 0; top: 0; width: 400px; height: 200px";
        const chart = new Chart("Loss");
        panel.append(chart.element);
        document.body.append(panel);
        const times = { 500: [], 10000: [] };
        for (let n = 0; n < 40; n++) {
            const count = n % 2 ? 10000 : 500; // in turn: another job may come and go
            const steps = [...Array(count).keys()].map((n) => n + 1);
            const term = (size) => steps.map((s) => size * (1 + Math.sin(s * s)) + 1 / s);
            const sizes = Object.entries({ content: 1, style: 2, penalty: 9 });
            chart.show(steps, new Map(sizes.map(([name, size]) => [name, term(size)])));
            const start = performance.now();
            chart.draw();
            times[count].push(performance.now() - start);
        }
        panel.remove();
        for (const of of Object.values(times)) of.sort((a, b) => a - b);
        return { ...chart.drawn, times };
    }
"""


def test_training_panel_shows_each_pass_of_the_closed_form_while_it_goes_on(
    tab: Page, renderer: str
) -> None:
    drop(tab, MERGE)
    look_at(tab, "ZipLoRAOptimize")
    said = message(tab, "ZipLoRAOptimize", 0, run="of passes", points={"step": []})
    said |= {"steps": 0, "prepared": [0, 0]}
    shown = panel(tab, "Training of ZipLoRA Optimize")
    tab.evaluate(DISPATCH, said | {"speed": None})
    expect(shown).to_contain_text("starting · 1.0 of 8.0 GiB in use")
    tab.evaluate(DISPATCH, said | {"errors": [1, 0.62, 0.31], "prepared": [90, 120]})
    expect(shown).to_contain_text("75 % done · 2 passes · 15 s left · 1.0 of 8.0 GiB in use")
    expect(shown).to_contain_text("error 0.31")
    expect(chart_of(shown)).to_have_attribute("aria-label", contains("pass 2: error 0.31"))
    expect(shown.get_by_text("Stop and keep")).to_be_enabled()
    expect(shown.get_by_text("Save now")).to_be_disabled()  # there is nothing to save yet
    expect(shown.get_by_text("log scale", exact=True)).to_be_hidden()
    shoot(tab, f"{renderer}_passes")


def test_curve_that_is_too_low_to_be_seen_is_said_and_the_drawing_is_sharp_when_zoomed_in(
    tab: Page, renderer: str
) -> None:
    drop(tab, MERGE)
    look_at(tab, "ZipLoRAOptimize")
    said = message(tab, "ZipLoRAOptimize", 40, run=f"low {renderer}")
    said["points"] |= {"style": [1e-7] * 40}
    tab.evaluate(DISPATCH, said)
    shown = panel(tab, "Training of ZipLoRA Optimize")
    expect(shown.locator(".legend")).to_contain_text("style 1e-7 (below the chart)")
    shown.get_by_text("log scale", exact=True).click()
    expect(shown.locator(".legend")).not_to_contain_text("below")
    shown.get_by_text("log scale", exact=True).click()
    for zoom, pixels in ((2.0, 2.0), (8.0, 4.0), (0.5, 1.0)):
        tab.evaluate(ZOOM, zoom)
        tab.wait_for_timeout(1000)
        assert chart_of(shown).evaluate(PIXELS) == pytest.approx(pixels, rel=0.02)


def test_running_mean_bends_at_no_value_that_leaves_it(tab: Page) -> None:
    falls = tab.evaluate(MEAN)
    assert falls[0] == 0  # no value there
    assert all(later <= earlier for earlier, later in itertools.pairwise(falls[1:]))


def test_chart_of_ten_thousand_points_draws_a_few_for_each_pixel_column(tab: Page) -> None:
    drawn = tab.evaluate(TEN_THOUSAND)
    assert 300 < drawn["columns"] < 400
    assert drawn["points"] <= 3 * 4 * (drawn["columns"] + 1)
    few, many = drawn["times"]["500"], drawn["times"]["10000"]
    assert many[0] < 10 * few[0]  # twenty times the points
    tab.evaluate(SET_VUE, False)
    drop(tab, MERGE)
    tab.evaluate(DISPATCH, message(tab, "ZipLoRAOptimize", 10_000))
    taken = tab.evaluate(NEXT_MESSAGES, message(tab, "ZipLoRAOptimize", 10_000))
    shown = panel(tab, "Training of ZipLoRA Optimize")
    expect(chart_of(shown)).to_have_attribute("aria-label", contains("step 10020: "))
    print(  # noqa: T201 (for docs/BENCHMARKS.md)
        f"10,000 points of 3 terms: {many[10]:.2f} ms a drawing ({few[10]:.2f} ms of 500), "
        f"{taken:.2f} ms a message"
    )


def test_scale_of_any_values_has_two_to_seven_numbers_each_another(tab: Page) -> None:
    for count, different in tab.evaluate(TICKS):
        assert 2 <= count <= 7 and different == count
