"""Panels can be used without a mouse, are quiet, and leave the rest of the page alone."""

from __future__ import annotations

import re

from playwright.sync_api import Locator, Page, expect

from .pages import (
    DISPATCH,
    DREAMBOOTH,
    MERGE,
    SLIDERS,
    chart_of,
    drop,
    look_at,
    message,
    panel,
    shoot,
)

FOCUSED = """
    () => {
        const { activeElement: e } = document;
        return e.closest(".ziplora-panel") && (e.getAttribute("aria-label") ?? e.textContent);
    }
"""
RULES = """
    () => {
        const sheet = document.querySelector("style[data-ziplora]").sheet;
        return [...sheet.cssRules].map((rule) => rule.selectorText ?? rule.cssText);
    }
"""
MOVES = """
    (panel) => [panel, ...panel.querySelectorAll("*")].filter((element) => {
        const { transitionDuration, animationName } = getComputedStyle(element);
        return animationName !== "none" || !/^0s(, 0s)*$/.test(transitionDuration);
    }).map((element) => element.outerHTML)
"""


def test_tab_key_goes_through_a_panel_from_top_to_bottom_and_on(tab: Page, renderer: str) -> None:
    tab.route("**/samples/*", lambda route: route.fulfill())  # no run, so the server has none
    drop(tab, DREAMBOOTH)
    look_at(tab, "TrainDreamBoothLoRA")
    tab.evaluate(DISPATCH, message(tab, "TrainDreamBoothLoRA", 9, samples=[3, 6, 9]))
    chart = chart_of(panel(tab, "Training of Train DreamBooth LoRA"))
    expect(chart).to_have_attribute("aria-label", re.compile("step 9"))
    assert order(tab, chart, 5) == ["Loss", "Sample pictures over time", "Stop and keep",
                                    "Save now", "log"]  # fmt: skip
    drop(tab, SLIDERS)
    look_at(tab, "ConceptSlider")
    scale = panel(tab, "Slider of Concept Slider").get_by_role("slider", name="Scale")
    assert order(tab, scale, 3) == ["Scale", "Start of the sampling window",
                                    "End of the sampling window"]  # fmt: skip
    shoot(tab, f"{renderer}_focus")
    tab.keyboard.press("Tab")
    assert tab.evaluate(FOCUSED) is None  # no trap


def order(page: Page, first: Locator, count: int) -> list[str]:
    """What has the focus after each press of Tab, beginning with `first`; a chart by its name."""
    first.focus()
    found = []
    for _ in range(count):
        found.append(str(page.evaluate(FOCUSED)).split(",")[0])
        outline = page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid" or not found[1:]  # where one is can be seen, once Tab was used
        page.keyboard.press("Tab")
    return found


def test_nothing_on_a_panel_moves_by_itself_and_our_styles_stay_within_panels(tab: Page) -> None:
    for path, node, name in (
        (MERGE, "ZipLoRAOptimize", "Training of ZipLoRA Optimize"),
        (MERGE, "ZipLoRAOptimize", "Map of ZipLoRA Optimize"),
        (SLIDERS, "ConceptSlider", "Slider of Concept Slider"),
    ):
        drop(tab, path)
        look_at(tab, node)
        assert panel(tab, name).evaluate(MOVES) == []
    rules = tab.evaluate(RULES)
    assert len(rules) > 20
    assert [rule for rule in rules if not rule.startswith(".ziplora-panel")] == []
