"""A person opens ComfyUI's template browser, finds the pack's workflows and opens one."""

from __future__ import annotations

import json

from playwright.sync_api import Page, expect

from sandbox.paths import ROOT

from .pages import COMMAND, MISSING, shoot

NAMES = sorted(file.stem for file in (ROOT / "workflows").glob("*.json"))
OPENED = "02 ZipLoRA merge"


def test_template_browser_lists_every_workflow_with_its_picture_and_opens_it(page: Page) -> None:
    page.evaluate(COMMAND, "Comfy.BrowseTemplates")
    page.get_by_role("button", name="ZipLoRA", exact=True).click()
    cards = page.locator("[data-testid^=template-workflow-]")
    for _ in range(10):  # newer frontends add cards as the list is scrolled
        cards.last.scroll_into_view_if_needed()
        page.wait_for_timeout(200)
    expect(cards).to_have_count(len(NAMES))
    for name in NAMES:
        card = page.get_by_test_id(f"template-workflow-{name}")
        card.scroll_into_view_if_needed()
        picture = card.get_by_role("img", name=name)  # one that fails is replaced, without a name
        expect(picture).to_have_js_property("complete", True)
        width, height = picture.evaluate("(image) => [image.naturalWidth, image.naturalHeight]")
        assert width == height >= 400, name  # square, as the cards are
    shoot(page, "templates")

    page.get_by_test_id(f"template-workflow-{OPENED}").click()
    shipped = json.loads((ROOT / "workflows" / f"{OPENED}.json").read_text(encoding="utf-8"))
    nodes = len(shipped["nodes"])
    page.wait_for_function(f"() => app.graph.nodes.length === {nodes}")
    assert page.evaluate(MISSING) == []
    tabs = page.get_by_test_id("topbar-workflow-tabs")
    expect(tabs.get_by_text(OPENED)).to_be_visible()
