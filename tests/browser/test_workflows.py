"""A person drops a shipped workflow on the canvas, presses Run and sees the result."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from sandbox.paths import ROOT
from sandbox.server import ComfyServer

from .fonts import in_every_font
from .pages import (
    DREAMBOOTH,
    MERGE,
    MISSING,
    NEW_BLANK_WORKFLOW,
    RENDERERS,
    RUN_MS,
    SET_VUE,
    assert_readable,
    chart_of,
    contains,
    drop,
    look_at,
    override,
    panel,
    report,
    run,
    shoot,
    tab_to,
)

FILES = sorted((ROOT / "workflows").glob("*.json"))
STEPS = 6
OTHER_REPORTS = (
    ("LoadLoRAPair", "Load LoRA Pair (content + style)", "trigger words: sks dog"),
    ("SaveMergedLoRA", "Save Merged LoRA", "press R, and LoRA loaders list it as "),
)
UNKNOWN = """
    () => app.graph.nodes
        .map((node) => node.type)
        .filter((type) => !(type in LiteGraph.registered_node_types))
"""
NODE_ID = "(type) => app.graph.nodes.find((node) => node.type === type).id"
MOVE = """
    () => {
        app.canvas.emitBeforeChange();
        app.graph.nodes[0].pos[0] += 1000;
        app.canvas.emitAfterChange();
        app.canvas.canvas.focus();
    }
"""
IN_PLACE = "() => app.graph.nodes[0].pos[0] < 1000"
CURRENT = """
    () => app.graph.nodes.flatMap((node) => node.widgets ?? []).every(({ element }) =>
        !element?.dataset.ziploraWidget || element.isConnected)
"""
"""Whether all that is shown belongs to the nodes that there are now."""
OVERLAPS = """
    () => {
        const nodes = [...document.querySelectorAll("[data-node-id]")].map((element) => {
            const box = element.getBoundingClientRect();
            const { title, type } = app.graph.getNodeById(element.dataset.nodeId);
            return [title || type, box.left, box.top, box.right, box.bottom];
        });
        const over = ([, l, t, r, b], [, L, T, R, B]) =>
            Math.min(r, R) - Math.max(l, L) > 1 && Math.min(b, B) - Math.max(t, T) > 1;
        return nodes.flatMap((a, n) => nodes.slice(n + 1).filter((b) => over(a, b))
            .map((b) => `${a[0]} (to ${a[4]}), ${b[0]} (from ${b[2]})`));
    }
"""
PICTURE_ON_CANVAS = """
    ([type, source]) => app.graph.nodes.find((node) => node.type === type)
        .imgs?.some((image) => image.naturalWidth > 0 && image.src.includes(source))
"""


@pytest.fixture(params=RENDERERS)
def renderer(request: pytest.FixtureRequest, page: Page, server: ComfyServer) -> Iterator[str]:
    """One of the frontend's two ways of drawing nodes; the server remembers no earlier run."""
    server.free()
    server.post("/history", {"clear": True})
    page.evaluate(SET_VUE, RENDERERS[request.param])
    yield request.param
    page.evaluate(SET_VUE, False)


@in_every_font
def test_merge_workflow_dropped_and_run_shows_report_and_image(
    page: Page, renderer: str, fonts: str
) -> None:
    drop(page, MERGE)
    assert page.evaluate(MISSING) == []
    override(page, {"ZipLoRAOptimize": {"solver": "adam", "steps": STEPS}})
    look_at(page, "ZipLoRAOptimize")
    expect(report(page, "ZipLoRA Optimize")).to_have_value("")

    run(page)
    learned = report(page, "ZipLoRA Optimize")
    expect(learned).to_have_value(contains(f"of {STEPS} steps"), timeout=RUN_MS)
    assert "retention (error against" in learned.input_value()
    assert_readable(learned)
    shoot(page, f"{renderer}_{fonts}_report")

    look_at(page, "SaveImage")
    see_picture(page, "SaveImage", "/view?", renderer)
    shoot(page, f"{renderer}_{fonts}_image")
    for node_type, title, words in OTHER_REPORTS:
        look_at(page, node_type)
        expect(report(page, title)).to_have_value(contains(words))
        assert_readable(report(page, title))
        shoot(page, f"{renderer}_{fonts}_{node_type}")

    page.evaluate(MOVE)
    page.keyboard.press("Control+z")
    page.wait_for_function(IN_PLACE)
    expect(learned).to_have_value(contains(f"of {STEPS} steps"))
    page.wait_for_function(CURRENT)
    mapped = panel(page, "Map of ZipLoRA Optimize").locator(".plot > canvas")
    expect(mapped).to_have_attribute("aria-label", contains("how much of the content is kept"))

    page.evaluate(NEW_BLANK_WORKFLOW)
    expect(report(page, "ZipLoRA Optimize")).to_have_count(0)
    tab_to(page, MERGE.stem)
    expect(report(page, "ZipLoRA Optimize")).to_have_value(contains(f"of {STEPS} steps"))


def test_training_workflow_dropped_and_run_shows_curve_pictures_and_report(
    page: Page, renderer: str
) -> None:
    drop(page, DREAMBOOTH)
    assert page.evaluate(MISSING) == []
    override(page, {"TrainingOptions": {"sample_every": 10}})
    look_at(page, "TrainDreamBoothLoRA")
    run(page)
    learned = report(page, "Train DreamBooth LoRA")
    expect(learned).to_have_value(contains("20 of 20 steps"), timeout=RUN_MS)
    assert_readable(learned)
    shown = panel(page, "Training of Train DreamBooth LoRA")
    expect(chart_of(shown)).to_have_attribute("aria-label", contains("Loss, step 20: instance 0."))
    picture, scrub = shown.locator("img"), shown.get_by_label("Sample images over time")
    expect(picture).to_have_attribute("alt", "Sample images of step 20")
    seen = set()
    for key, step in (("Home", 10), ("End", 20)):
        scrub.press(key)
        expect(scrub).to_have_attribute("aria-valuetext", f"step {step}")
        expect(picture).to_have_js_property("complete", True)
        assert picture.evaluate("(image) => image.naturalWidth") > 50
        seen.add(picture.get_attribute("src"))
    assert len(seen) == 2
    small = picture.bounding_box()
    picture.click()
    large = page.locator("dialog img")
    expect(large).to_have_attribute("alt", "Sample images of step 20")
    shown_large = large.bounding_box()
    assert small and shown_large and shown_large["height"] > 2 * small["height"]
    page.keyboard.press("Escape")
    expect(large).to_have_count(0)
    shoot(page, f"{renderer}_trained")
    look_at(page, "LoadTrainingImages")
    pictures = report(page, "Load Training Images (folder)")
    expect(pictures).to_have_value(contains("5 pictures of"))
    assert_readable(pictures)


@pytest.mark.parametrize("path", FILES, ids=[file.stem for file in FILES])
def test_workflow_dropped_and_saved_again_is_the_same(long_open_page: Page, path: Path) -> None:
    page = long_open_page
    page.evaluate(NEW_BLANK_WORKFLOW)
    page.wait_for_function("() => app.graph.nodes.length === 0")
    drop(page, path)
    assert page.evaluate(UNKNOWN) == []
    page.wait_for_timeout(500)
    saved = json.loads(page.evaluate("() => JSON.stringify(app.graph.serialize())"))
    shipped = json.loads(path.read_text(encoding="utf-8"))
    assert saved["links"] == shipped["links"]
    for now, before in zip(saved["nodes"], shipped["nodes"], strict=True):
        for key in ("id", "type", "pos", "mode", "order", "widgets_values"):
            empty = [] if key == "widgets_values" else None  # newer frontends leave it out
            assert now.get(key, empty) == before.get(key, empty), (before["type"], key)
        assert now["size"] == pytest.approx(before["size"], abs=1e-6), before[
            "type"
        ]  # sums of shares


@in_every_font
@pytest.mark.parametrize("path", FILES, ids=[file.stem for file in FILES])
def test_nodes_of_a_workflow_do_not_cover_each_other_in_nodes_2(
    long_open_page: Page, path: Path, fonts: str
) -> None:
    page = long_open_page
    page.evaluate(SET_VUE, True)
    try:
        drop(page, path)
        page.evaluate("() => { app.canvas.ds.scale = 1; app.canvas.setDirty(true, true); }")
        page.wait_for_timeout(700)
        assert page.evaluate(OVERLAPS) == []
    finally:
        page.evaluate(SET_VUE, False)


def test_report_and_panels_in_a_saved_workflow_are_left_out(page: Page) -> None:
    drop(page, MERGE)
    nodes = page.evaluate("() => app.graph.serialize().nodes")
    (optimize,) = (node for node in nodes if node["type"] == "ZipLoRAOptimize")
    widgets = page.evaluate(
        "(id) => app.graph.getNodeById(id).widgets.map((w) => w.name)", optimize["id"]
    )
    ours = ["training", "merge_map", "report"]
    assert widgets[-3:] == ours
    assert len(optimize["widgets_values"]) == len(widgets) - 3
    prompt = page.evaluate("async () => (await app.graphToPrompt()).output")
    assert not set(ours) & set(prompt[str(optimize["id"])]["inputs"])


def see_picture(page: Page, node_type: str, source: str, renderer: str) -> None:
    """Wait until a node shows a picture from that source."""
    if renderer == "vue":
        node_id = page.evaluate(NODE_ID, node_type)
        picture = page.locator(f'[data-node-id="{node_id}"] img[src*="{source}"]')
        expect(picture.first).to_be_visible(timeout=RUN_MS)
        return
    page.wait_for_function(PICTURE_ON_CANVAS, arg=[node_type, source], timeout=RUN_MS)
