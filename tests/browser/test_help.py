"""The frontend's side panel shows a node's help page, and leaves the node as it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from .pages import RENDERERS, SET_VUE, report, shoot

SELECT_NEW_NODE = """
    () => {
        app.graph.clear();
        const node = LiteGraph.createNode("ZipLoRAOptimize");
        app.graph.add(node);
        app.canvas.ds.scale = 1;
        app.canvas.ds.offset = [300, 150];
        app.canvas.selectNode(node);
        app.canvas.setDirty(true, true);
    }
"""
REDRAW = "() => { app.canvas.ds.offset[0] += 10; app.canvas.setDirty(true, true); }"


@pytest.fixture
def side_panel(page: Page) -> Iterator[None]:
    """Close the side panel afterwards: the server remembers that it is open."""
    yield
    page.evaluate("app.extensionManager.setting.set('Comfy.RightSidePanel.IsOpen', false)")


@pytest.mark.usefixtures("side_panel")
@pytest.mark.parametrize("renderer", RENDERERS)
def test_info_panel_of_a_node_shows_its_help_page(page: Page, renderer: str) -> None:
    page.evaluate(SET_VUE, RENDERERS[renderer])
    page.evaluate(SELECT_NEW_NODE)
    said = report(page, "ZipLoRA Optimize")
    expect(said).to_be_visible()

    page.get_by_test_id("info-button").click()
    expect(page.get_by_role("heading", name="Reading the report")).to_be_attached()
    expect(page.get_by_role("heading", name="Signs of trouble")).to_be_attached()
    picture = page.get_by_role("img", name="ZipLoRA Optimize on the canvas")
    expect(picture).to_be_visible()
    page.wait_for_function("(image) => image.naturalWidth > 300", arg=picture.element_handle())
    shoot(page, f"{renderer}_help")

    width = said.evaluate("(element) => element.offsetWidth")
    page.get_by_role("tab", name="Parameters").click()
    page.wait_for_timeout(500)
    page.evaluate(REDRAW)
    page.wait_for_timeout(500)
    expect(said).to_have_count(1)
    wider = said.evaluate("(element) => element.offsetWidth") - width
    assert wider in (0, 18)  # as frontends before 1.45.20 draw it
    page.evaluate(SET_VUE, False)
