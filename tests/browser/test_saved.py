"""A file that was just saved is in the lists of the page."""

from __future__ import annotations

from playwright.sync_api import Page

from .pages import MERGE, drop, override, run
from .test_last_run import wait_until_done

LISTED = """
    () => LiteGraph.createNode("LoadMergedLoRA").widgets[0].options.values.filter(
        (name) => name.startsWith("just saved"))
"""
NAME_IT = """
    () => {
        const node = app.graph.nodes.find((n) => n.type === "SaveMergedLoRA");
        node.widgets.find((w) => w.name === "filename_prefix").value = "just saved";
    }
"""


def test_saved_merge_is_listed_at_once(page: Page) -> None:
    drop(page, MERGE)
    override(page)
    page.evaluate(NAME_IT)
    assert page.evaluate(LISTED) == []
    run(page)
    wait_until_done(page)
    page.wait_for_function(f"() => ({LISTED})().length === 1")
