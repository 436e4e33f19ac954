"""Draw the help pages' pictures from the real frontend: `make pictures`.

Each node is shown in a shipped workflow, with the ends of what it is connected to. Not a test:
pytest does not collect it by itself, but runs it with the fixtures of the tests.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Page

from sandbox.paths import ROOT

Json = dict[str, Any]
Box = dict[str, float]

DOCS = ROOT / "js" / "docs"
SHOWN_IN = {"ZipLoRAOptimize": "ziplora_merge"}
"""Where it has its usual values; a smaller workflow shows the steps."""
WINDOW = {"width": 1600, "height": 2000}
"""High enough for every node: far away, the frontend leaves the words out."""
SHAPE, LARGEST = (760, 1100), 60_000
ATTEMPTS = (80, 70, 60, 50, 40)
"""Qualities of the file, until it is no larger than `LARGEST` bytes."""
LOAD = "(workflow) => app.loadGraphData(workflow, true, true, null)"
TIDY = "(shown) => app.extensionManager.setting.set('Comfy.Minimap.Visible', shown)"
LOOK_AT = """
    (type) => {
        const node = app.graph.nodes.find((n) => n.type === type);
        node.mode = 0; // even where the workflow has it muted or bypassed
        node.title = node.constructor.title;
        const { canvas, ds } = app.canvas;
        const width = canvas.width / devicePixelRatio, height = canvas.height / devicePixelRatio;
        const title = 30, margin = 24, beside = 150;
        const [w, h] = [node.size[0] + 2 * beside, node.size[1] + title + 2 * margin];
        ds.scale = Math.min(1, (height - 150) / h, (width - 100) / w);
        ds.offset[0] = width / ds.scale / 2 - node.pos[0] - node.size[0] / 2;
        ds.offset[1] = 95 / ds.scale + margin + title - node.pos[1];
        app.canvas.deselectAll();
        app.canvas.setDirty(true, true);
        const left = (node.pos[0] - beside + ds.offset[0]) * ds.scale;
        const top = (node.pos[1] - title - margin + ds.offset[1]) * ds.scale;
        return { x: left, y: top, width: w * ds.scale, height: h * ds.scale };
    }
"""
NO_FRAMES = """
    () => {
        for (const node of app.graph.nodes) node.has_errors = false; // files named are not there
        app.canvas.setDirty(true, true);
    }
"""


@pytest.fixture
def tidy_page(long_open_page: Page) -> Iterator[Page]:
    """The page in a high window, without the small map over the canvas."""
    before = long_open_page.viewport_size
    assert before is not None
    long_open_page.set_viewport_size(WINDOW)
    long_open_page.evaluate(TIDY, False)
    yield long_open_page
    long_open_page.evaluate(TIDY, True)
    long_open_page.set_viewport_size(before)


def test_help_pictures(tidy_page: Page) -> None:
    for node_id, workflow in sorted(shown_in().items()):
        tidy_page.evaluate(LOAD, workflow)
        tidy_page.wait_for_timeout(1500)
        box: Box = tidy_page.evaluate(LOOK_AT, node_id)
        tidy_page.wait_for_timeout(1000)
        tidy_page.evaluate(NO_FRAMES)
        tidy_page.wait_for_timeout(500)
        save(node_id, tidy_page.screenshot(clip=box))


def shown_in() -> dict[str, Json]:
    """For each node with a help page, the smallest workflow it is in, or its own of `SHOWN_IN`."""
    workflows = {
        file.stem: json.loads(file.read_text(encoding="utf-8"))
        for file in sorted((ROOT / "workflows").glob("*.json"))
    }
    smallest = sorted(workflows.values(), key=lambda workflow: len(workflow["nodes"]))
    return {
        folder.name: workflows[SHOWN_IN[folder.name]]
        if folder.name in SHOWN_IN
        else next(w for w in smallest if any(n["type"] == folder.name for n in w["nodes"]))
        for folder in DOCS.iterdir()
    }


def save(node_id: str, screenshot: bytes) -> None:
    """Write the picture as small as it has to be."""
    picture = Image.open(io.BytesIO(screenshot)).convert("RGB")
    picture.thumbnail(SHAPE, Image.Resampling.LANCZOS)
    for quality in ATTEMPTS:
        data = io.BytesIO()
        picture.save(data, "WEBP", quality=quality, method=6)
        if data.tell() <= LARGEST:
            break
    (DOCS / node_id / "node.webp").write_bytes(data.getvalue())
