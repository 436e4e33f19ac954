"""The pack's panels on nodes, in both renderers."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from .fonts import in_every_font
from .pages import (
    DISPATCH,
    DREAMBOOTH,
    INK,
    MERGE,
    SLIDERS,
    chart_of,
    contains,
    drop,
    look_at,
    message,
    panel,
    shoot,
)

TRAININGS = {"ZipLoRAOptimize": MERGE, "TrainDreamBoothLoRA": DREAMBOOTH}
SAVED = "my_subject_in_my_style_after_400_steps_00001_.safetensors"
INTO_SUBGRAPH = """
    () => {
        const node = app.graph.nodes.find((n) => n.type === "ZipLoRAOptimize");
        const outer = app.graph.convertToSubgraph(new Set([node])).node;
        app.canvas.setGraph(outer.subgraph);
        const [inner] = outer.subgraph.nodes.filter((n) => n.type === "ZipLoRAOptimize");
        return `${outer.id}:${inner.id}`;
    }
"""
CUT = """
    (panel) => [panel, ...panel.querySelectorAll(".head > *, .legend, .row, button, select, .ends")]
        .filter((e) => e.scrollHeight > e.clientHeight + 1 || e.scrollWidth > e.clientWidth + 1)
        .map((e) => e.className || e.textContent)
"""
"""Script: the elements of a panel whose content is cut off."""
COLOURS = """
    async (panel, palette) => {
        const { between, CURVES } = await import("/extensions/ziplora/colours.js");
        return [getComputedStyle(panel).color, ...CURVES[palette].map((c) => between([c, c], 0))];
    }
"""
SWATCHES = "(found) => found.map((swatch) => getComputedStyle(swatch).backgroundColor)"


def test_each_copy_of_a_workflow_has_trainings_of_its_own(tab: Page) -> None:
    drop(tab, MERGE)
    first = message(tab, "ZipLoRAOptimize", 7)
    drop(tab, MERGE)
    second = message(tab, "ZipLoRAOptimize", 9)
    assert len({first["workflow"], second["workflow"]}) == 2
    shown = panel(tab, "Training of ZipLoRA Optimize")
    for said in (second, first):
        tab.evaluate(DISPATCH, said)
    expect(shown).to_contain_text("step 9 of 400")


@in_every_font
@pytest.mark.parametrize("node_type", TRAININGS)
def test_training_panel_shows_what_the_server_says_and_outlives_what_it_should_not_say(
    tab: Page, renderer: str, node_type: str, fonts: str
) -> None:
    drop(tab, TRAININGS[node_type])
    look_at(tab, node_type)
    title = {"ZipLoRAOptimize": "ZipLoRA Optimize"}.get(node_type, "Train DreamBooth LoRA")
    shown = panel(tab, f"Training of {title}")
    expect(shown).to_contain_text("Loss, pace and memory appear here")
    chart, stop = chart_of(shown), shown.get_by_text("Stop and keep")
    expect(stop).to_be_disabled()
    size = shown.bounding_box()

    tab.evaluate(DISPATCH, message(tab, node_type, 100))
    expect(shown).to_contain_text("step 100 of 400 · 2 steps/s · 2 min 30 s left · 1.0 of 8.0 GiB")
    expect(chart).to_have_attribute("aria-label", contains("step 100: content 0.01, style 0.01"))
    expect(stop).to_be_enabled()
    assert chart.evaluate(INK) > 1000
    more = {"step": [100, 101, 102], "loss": [1, 1, None], "content": [5, 5, None],
            "style": [1, 1, 1]}  # fmt: skip
    tab.evaluate(DISPATCH, message(tab, node_type, 100, step=102, after=100, points=more))
    expect(chart).to_have_attribute("aria-label", contains("step 102: content: not a number"))
    chart.focus()
    tab.keyboard.press("Home")
    expect(shown.locator(".tip")).to_have_text("step 1\ncontent 1\nstyle 1")
    tab.keyboard.press("Escape")
    shown.get_by_text("log scale", exact=True).click()
    expect(shown.get_by_text("log scale", exact=True)).to_have_attribute("aria-pressed", "false")
    assert shown.bounding_box() == size
    shoot(tab, f"{renderer}_{fonts}_panel_{node_type}")

    whole = message(tab, node_type, 100)
    for broken in (None, 7, {}, {**whole, "points": None}, {**whole, "samples": "x"},
                   {**whole, "points": {"step": [1, 2], "loss": [1]}}, {**whole, "step": "x"},
                   {**whole, "node_id": "999"}, {**whole, "workflow": "another"}):  # fmt: skip
        tab.evaluate(DISPATCH, broken)
    expect(shown).to_contain_text("The server sent data that cannot be shown")
    tab.evaluate("() => app.api.dispatchEvent(new CustomEvent('reconnecting'))")
    expect(shown).to_contain_text("The server does not answer")
    expect(stop).to_be_disabled()
    tab.evaluate("() => app.api.dispatchEvent(new CustomEvent('reconnected'))")
    expect(shown).to_contain_text("The server was restarted")

    last = message(tab, node_type, 100)
    tab.evaluate("(type) => app.graph.remove(app.graph.nodes.find((n) => n.type === type))",
                 node_type)  # fmt: skip
    expect(shown).to_have_count(0)
    tab.evaluate(DISPATCH, last)


@in_every_font
def test_nothing_on_a_panel_is_cut_off(tab: Page, renderer: str, fonts: str) -> None:
    for node_type, path in TRAININGS.items():
        drop(tab, path)
        look_at(tab, node_type)
        said = message(tab, node_type, 400, state="stopped", saved=[SAVED], memory=[2**36, 2**37])
        losses = {term: said["points"]["loss"] for term in ("joint", "penalty")}
        tab.evaluate(DISPATCH, {**said, "points": {**said["points"], **losses}})
        title = {"ZipLoRAOptimize": "ZipLoRA Optimize"}.get(node_type, "Train DreamBooth LoRA")
        shown = panel(tab, f"Training of {title}")
        expect(shown).to_contain_text(f"learned · Saved as {SAVED}")
        expect(shown.locator(".legend > *")).to_have_count(4)
        assert shown.evaluate(CUT) == []
        expect(chart_of(shown)).to_be_in_viewport(ratio=0.999)
        shoot(tab, f"{renderer}_{fonts}_words_{node_type}")
        tab.evaluate(DISPATCH, message(tab, node_type, 390, run="another", memory=[2**36, 2**37]))
        expect(shown).to_contain_text("64.0 of 128.0 GiB")
        assert shown.evaluate(CUT) == []
    drop(tab, SLIDERS)
    look_at(tab, "ConceptSlider")
    assert panel(tab, "Slider of Concept Slider").evaluate(CUT) == []


def test_training_panel_in_a_subgraph_hears_its_messages_and_is_readable_in_both_palettes(
    tab: Page, renderer: str
) -> None:
    drop(tab, TRAININGS["ZipLoRAOptimize"])
    said = message(tab, "ZipLoRAOptimize", 7)
    said["node_id"] = tab.evaluate(INTO_SUBGRAPH)
    shown = panel(tab, "Training of ZipLoRA Optimize")
    expect(shown).to_be_visible()
    tab.evaluate(DISPATCH, said)
    expect(shown).to_contain_text("step 7 of 400")
    for palette, background in (("light", "rgb(201, 201, 201)"), ("dark", "rgb(34, 34, 34)")):
        tab.evaluate("(id) => app.extensionManager.setting.set('Comfy.ColorPalette', id)", palette)
        expect(shown).to_have_css("background-color", background)
        ink, *curves = shown.evaluate(COLOURS, palette)
        assert contrast(ink, background) >= 4.5
        swatches = shown.locator(".legend i").evaluate_all(SWATCHES)
        assert swatches == curves[:2]  # of content and of style, as the chart draws them
        assert min(contrast(curve, background) for curve in curves) >= 3  # WCAG 2, 1.4.11
    tab.evaluate("() => app.canvas.setGraph(app.rootGraph)")


def contrast(*colours: str) -> float:
    """Compute the contrast of two colours `rgb(r, g, b)`, as WCAG 2 defines it."""

    def luminance(colour: str) -> float:
        parts = [int(n) / 255 for n in re.findall(r"\d+", colour)[:3]]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    low, high = sorted(map(luminance, colours))
    return (high + 0.05) / (low + 0.05)
