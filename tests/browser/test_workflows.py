"""A person drops a shipped workflow on the canvas, presses Run and sees the result."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, expect

from sandbox.overrides import OVERRIDES
from sandbox.paths import ROOT, SANDBOX
from sandbox.server import ComfyServer

from .pages import NEW_BLANK_WORKFLOW, RENDERERS, SET_VUE

WORKFLOW = ROOT / "workflows" / "ziplora_merge.json"
TRAINING = ROOT / "workflows" / "dreambooth_subject.json"
FILES = sorted((ROOT / "workflows").glob("*.json"))
SHOTS = SANDBOX / "shots"
RUN_MS = 180_000
STEPS = 20
OTHER_REPORTS = (
    ("LoadLoRAPair", "Load LoRA Pair (content + style)", "trigger words: sks dog"),
    ("SaveMergedLoRA", "Save Merged LoRA", "saved: "),
)

DROP = """
    ([name, text]) => {
        const transfer = new DataTransfer();
        transfer.items.add(new File([text], name, { type: "application/json" }));
        const canvas = document.querySelector("#graph-canvas");
        for (const type of ["dragenter", "dragover", "drop"]) {
            const options = { bubbles: true, cancelable: true, dataTransfer: transfer };
            canvas.dispatchEvent(new DragEvent(type, { ...options, clientX: 700, clientY: 500 }));
        }
    }
"""
UNKNOWN = """
    () => app.graph.nodes
        .map((node) => node.type)
        .filter((type) => !(type in LiteGraph.registered_node_types))
"""
MISSING = """
    () => app.graph.nodes
        .filter((node) => node.has_errors || !(node.type in LiteGraph.registered_node_types))
        .map((node) => node.type)
"""
OVERRIDE = """
    (overrides) => {
        for (const node of app.graph.nodes) {
            for (const [name, value] of Object.entries(overrides[node.type] ?? {})) {
                const widget = node.widgets.find((w) => w.name === name);
                widget.value = value;
                widget.callback?.(value, app.canvas, node);
            }
        }
    }
"""
NODE_ID = "(type) => app.graph.nodes.find((node) => node.type === type).id"
CENTRE = """
    (type) => {
        const node = app.graph.nodes.find((n) => n.type === type);
        const { canvas, ds } = app.canvas;
        const width = canvas.width / devicePixelRatio, height = canvas.height / devicePixelRatio;
        ds.scale = Math.min(1, (height - 160) / (node.size[1] + 30));
        ds.offset[0] = width / ds.scale / 2 - node.pos[0] - node.size[0] / 2;
        ds.offset[1] = height / ds.scale / 2 - node.pos[1] - node.size[1] / 2;
        app.canvas.setDirty(true, true);
    }
"""
PICTURE_ON_CANVAS = """
    ([type, source]) => app.graph.nodes.find((node) => node.type === type)
        .imgs?.some((image) => image.naturalWidth > 0 && image.src.includes(source))
"""


@pytest.fixture(params=RENDERERS)
def renderer(request: pytest.FixtureRequest, page: Page, server: ComfyServer) -> Iterator[str]:
    """One of the frontend's two ways of drawing nodes; the server starts with nothing cached."""
    server.free()
    page.evaluate(SET_VUE, RENDERERS[request.param])
    yield request.param
    page.evaluate(SET_VUE, False)


def test_merge_workflow_dropped_and_run_shows_report_and_image(page: Page, renderer: str) -> None:
    drop(page, WORKFLOW)
    assert page.evaluate(MISSING) == []
    page.evaluate(OVERRIDE, OVERRIDES)
    page.evaluate(OVERRIDE, {"ZipLoRAOptimize": {"solver": "adam", "steps": STEPS}})
    look_at(page, "ZipLoRAOptimize")
    expect(report(page, "ZipLoRA Optimize")).to_have_value("")

    page.get_by_test_id("queue-button").click()
    see_points(page, "ZipLoRA Optimize")
    shoot(page, f"{renderer}_learning")

    learned = report(page, "ZipLoRA Optimize")
    expect(learned).to_have_value(contains(f"of {STEPS} steps"), timeout=RUN_MS)
    assert "retention on held-out noise" in learned.input_value()
    assert_readable(learned)
    shoot(page, f"{renderer}_report")

    look_at(page, "SaveImage")
    see_picture(page, "SaveImage", "/view?", renderer)
    shoot(page, f"{renderer}_image")
    for node_type, title, words in OTHER_REPORTS:
        look_at(page, node_type)
        expect(report(page, title)).to_have_value(contains(words))
        assert_readable(report(page, title))
        shoot(page, f"{renderer}_{node_type}")

    page.evaluate(NEW_BLANK_WORKFLOW)
    expect(report(page, "ZipLoRA Optimize")).to_have_count(0)
    page.get_by_test_id("topbar-workflow-tabs").get_by_text(WORKFLOW.stem).click()
    expect(report(page, "ZipLoRA Optimize")).to_have_value(contains(f"of {STEPS} steps"))


def test_training_workflow_dropped_and_run_shows_curve_and_report(
    page: Page, renderer: str
) -> None:
    drop(page, TRAINING)
    assert page.evaluate(MISSING) == []
    page.evaluate(OVERRIDE, OVERRIDES)
    look_at(page, "TrainDreamBoothLoRA")
    page.get_by_test_id("queue-button").click()
    learned = report(page, "Train DreamBooth LoRA")
    expect(learned).to_have_value(contains("20 of 20 steps"), timeout=RUN_MS)
    see_points(page, "Train DreamBooth LoRA")
    shoot(page, f"{renderer}_trained")
    assert_readable(learned)
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
        for key in ("id", "type", "pos", "size", "mode", "order", "widgets_values"):
            assert now.get(key) == before.get(key), (before["type"], key)


def test_report_and_panels_in_a_saved_workflow_are_left_out(page: Page) -> None:
    drop(page, WORKFLOW)
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


def drop(page: Page, path: Path) -> None:
    """Drop a file on the canvas and wait until its nodes are there."""
    text = path.read_text(encoding="utf-8")
    nodes = len(json.loads(text)["nodes"])
    page.evaluate(DROP, [path.name, text])
    page.wait_for_function(f"() => app.graph.nodes.length === {nodes}", timeout=30_000)


def look_at(page: Page, node_type: str) -> None:
    """Move the canvas to a node, as large as it fits."""
    page.evaluate(CENTRE, node_type)
    page.wait_for_timeout(500)


def report(page: Page, title: str) -> Locator:
    """The report on the node of that title."""
    return page.get_by_label(f"Report of {title}", exact=True)


def assert_readable(text: Locator) -> None:
    """All of a text area is on the screen, and all of its text in it."""
    expect(text).to_be_in_viewport(ratio=0.999)  # all, but for the browser's rounding
    hidden = text.evaluate("(element) => element.scrollHeight - element.clientHeight")
    assert hidden <= 0, f"{hidden} pixels of the report can only be seen by scrolling"


def see_picture(page: Page, node_type: str, source: str, renderer: str) -> None:
    """Wait until a node shows a picture from that source."""
    if renderer == "vue":
        node_id = page.evaluate(NODE_ID, node_type)
        picture = page.locator(f'[data-node-id="{node_id}"] img[src*="{source}"]')
        expect(picture.first).to_be_visible(timeout=RUN_MS)
        return
    page.wait_for_function(PICTURE_ON_CANVAS, arg=[node_type, source], timeout=RUN_MS)


def see_points(page: Page, title: str) -> None:
    """Wait until the training panel of a node has drawn some steps."""
    shown = page.get_by_role("group", name=f"Training of {title}", exact=True)
    drawn = re.compile(r"Loss, step \d+: \w+ ")
    expect(shown.locator(".plot canvas")).to_have_attribute("aria-label", drawn, timeout=RUN_MS)


def contains(words: str) -> re.Pattern[str]:
    """A pattern for text with these words anywhere."""
    return re.compile(re.escape(words))


def shoot(page: Page, name: str) -> None:
    """Keep a picture of the page for people."""
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.wait_for_timeout(500)
    page.screenshot(path=SHOTS / f"{name}.png")
