"""Panels can be used without a mouse, are quiet, and leave the rest of the page alone."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from sandbox.server import ComfyServer

from .conftest import open_page
from .pages import (
    DISPATCH,
    DREAMBOOTH,
    MERGE,
    RENDERERS,
    SET_VUE,
    SLIDERS,
    Said,
    chart_of,
    drop,
    listen,
    look_at,
    message,
    panel,
    shoot,
)

OURS = re.compile("/extensions/ziplora/|/api/ziplora/|/scripts/(app|api).js$|/api/history$")
"""Our scripts, what of the frontend they import, our routes, and where the last results are."""
EXTENSIONS = re.compile("/(api/)?extensions$")
FOCUSED = """
    () => {
        const { activeElement: e } = document;
        const name = e.getAttribute("aria-label") ?? (e.alt || e.textContent);
        return e.closest(".ziplora-panel") && name;
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
    assert order(tab, chart, 6) == ["Loss", "Sample images of step 9", "Sample images over time",
                                    "Stop and keep", "Save now", "log scale"]  # fmt: skip
    drop(tab, SLIDERS)
    look_at(tab, "ConceptSlider")
    scale = panel(tab, "Slider of Concept Slider").get_by_role("slider", name="Strength")
    assert order(tab, scale, 3) == ["Strength", "Start of the sampling window",
                                    "End of the sampling window"]  # fmt: skip
    shoot(tab, f"{renderer}_focus")
    tab.keyboard.press("Tab")
    assert tab.evaluate(FOCUSED) is None  # no trap


def order(page: Page, first: Locator, count: int) -> list[str]:
    """List the focused elements after each press of Tab, from `first` on; a chart by its name."""
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
    ours = (".ziplora-panel", ".ziplora-report", ".ziplora-large", ".ziplora-strip")
    assert [rule for rule in rules if not rule.startswith(ours)] == []


@pytest.mark.thorough
def test_page_with_the_pack_says_and_asks_for_nothing_that_one_without_it_does_not(
    browser: Browser, server: ComfyServer
) -> None:
    """The frontend's part of the pack, that is: without it, no script of ours is served. Our nodes
    are used in both: the server knows them anyway."""
    said: dict[bool, list[Said]] = {}
    asked: dict[bool, set[str]] = {}
    for ours in (False, True):
        requests: list[str] = []

        def prepare(page: Page, ours: bool = ours, requests: list[str] = requests) -> None:
            listen(page, said.setdefault(ours, []))
            page.on("request", lambda request: requests.append(request.url))
            if not ours:
                page.route(EXTENSIONS, without_ours)

        with open_page(browser, server, prepare) as page:
            for vue in RENDERERS.values():
                page.evaluate(SET_VUE, vue)
                for path in (MERGE, DREAMBOOTH, SLIDERS):
                    drop(page, path)
                    page.wait_for_timeout(1000)
                page.evaluate("() => app.graph.remove(app.graph.nodes[3])")
                page.keyboard.press("Control+z")
                page.wait_for_timeout(1000)
            page.evaluate(SET_VUE, False)
        asked[ours] = {urlsplit(url).path for url in requests if url.startswith("http")}
        asked[ours] = {path for path in asked[ours] if not OURS.match(path)}
    assert asked[True] - asked[False] == set()
    assert set(said[True]) - set(said[False]) == set()


def without_ours(route: Route) -> None:
    """Leave our scripts out of the list of those that the frontend loads."""
    listed = route.fetch().json()
    route.fulfill(json=[path for path in listed if "/ziplora/" not in path])
