"""Draw the pictures of help pages and guide from the real frontend: `make pictures`.

Each node is shown in a shipped workflow, with the ends of what it is connected to; those that have
something to show after a run, after one with the miniature SDXL and the demo's LoRAs. Not a test:
pytest does not collect it by itself, but runs it with the fixtures of the tests.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from sandbox import demo
from sandbox.paths import BASE, ROOT
from sandbox.server import ComfyServer
from sandbox.workflow import to_prompt

from .conftest import open_page
from .miniature import KEPT, OVERRIDES, write_inputs
from .pages import OVERRIDE, run

Json = dict[str, Any]
Box = dict[str, float]

DOCS = ROOT / "js" / "docs"
GUIDE = ROOT / "docs" / "images" / "workflow.jpg"
FIRST = "13 Train a slider from words"
"""It trains the slider that others show."""
SHOWN_IN = {
    "ZipLoRAOptimize": "02 ZipLoRA merge",
    "PlotMerge": "10 Look at a merge",
    "PlotLoss": "10 Look at a merge",
    "StrengthGrid": "10 Look at a merge",
    "FindMerge": "04 Find the merge",
    "ChooseMerge": "04 Find the merge",
    "TrainDreamBoothLoRA": "06 Train a subject LoRA",
    "TrainConceptSlider": FIRST,
    "TrainConceptSliderFromImages": "14 Train a slider from images",
    "ConceptSlider": "15 Use a slider",
    "UnZipLoRATrain": "17 Split an image",
    "PlotWeights": "22 Prune a LoRA",
    "PruneLoRA": "22 Prune a LoRA",
}
"""Where it has its usual values; a smaller workflow shows the other nodes."""
VALUES = "() => app.graph.nodes.map((node) => (node.widgets ?? []).map((w) => w.value))"
PUT_BACK = """
    ([values, kept, names]) => app.graph.nodes.forEach((node, n) => {
        for (const [k, w] of (node.widgets ?? []).entries()) {
            if (w.name === "report") {
                for (const [name, usual] of names) w.value = w.value.replaceAll(name, usual);
                continue;
            }
            const ours = w.element?.dataset.ziploraWidget;
            if (!ours && !kept[node.type]?.includes(w.name)) w.value = values[n][k];
        }
    })
"""
UNLINK = """
    () => app.graph.nodes.filter((node) => node.type === "SliderPrompts").flatMap((node) =>
        node.outputs.flatMap(({ links }, out) => [...(links ?? [])].map((id) => {
            const { target_id, target_slot } = app.graph.links.get(id);
            app.graph.getNodeById(target_id).disconnectInput(target_slot);
            return [node.id, out, target_id, target_slot];
        })))
"""
LINK = """
    (links) => links.forEach(([from, out, to, slot]) =>
        app.graph.getNodeById(from).connect(out, app.graph.getNodeById(to), slot))
"""
ALL = """
    () => {
        const { ds, canvas } = app.canvas;
        const boxes = app.graph.groups.map((group) => [...group.pos, ...group.size]);
        const left = Math.min(...boxes.map((b) => b[0])), top = Math.min(...boxes.map((b) => b[1]));
        const right = Math.max(...boxes.map((b) => b[0] + b[2]));
        const bottom = Math.max(...boxes.map((b) => b[1] + b[3]));
        const margin = 16, side = 90, head = 110;
        ds.scale = (innerWidth - 2 * side) / (right - left + 2 * margin);
        ds.offset = [side / ds.scale + margin - left, head / ds.scale + margin - top];
        app.canvas.deselectAll();
        app.canvas.setDirty(true, true);
        const [width, height] = [right - left + 2 * margin, bottom - top + 2 * margin];
        return { x: side, y: head, width: width * ds.scale, height: height * ds.scale };
    }
"""
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


@pytest.fixture(scope="module")
def mini_server() -> Iterator[ComfyServer]:
    """The demo's ComfyUI, after the demo: with its two LoRAs, and pictures to train on."""
    demo.prepare()
    with ComfyServer(BASE) as server:
        workflow = json.loads(demo.WORKFLOW.read_text(encoding="utf-8"))
        result = server.run(to_prompt(workflow, server.object_info(), {}), timeout=1800)
        assert result.status == "success", result.error
        write_inputs(server.base / "input")
        yield server


@pytest.fixture(scope="module")
def tidy_page(browser: Browser, mini_server: ComfyServer) -> Iterator[Page]:
    """A page in a high window, without what lies over the canvas: small map, notifications."""
    with open_page(browser, mini_server, device_scale_factor=2) as page:
        page.set_viewport_size(WINDOW)
        page.evaluate(TIDY, False)
        page.add_style_tag(content=".p-toast { display: none }")
        yield page
        page.evaluate(TIDY, True)


def shown_in() -> dict[str, str]:
    """For each node with a help page, the smallest workflow it is in, or its own of `SHOWN_IN`."""
    workflows = {
        file.stem: json.loads(file.read_text(encoding="utf-8"))
        for file in sorted((ROOT / "workflows").glob("*.json"))
    }
    smallest = sorted(workflows, key=lambda name: len(workflows[name]["nodes"]))

    def found(node_id: str) -> str:
        return next(w for w in smallest if any(n["type"] == node_id for n in workflows[w]["nodes"]))

    return {
        folder.name: SHOWN_IN.get(folder.name) or found(folder.name) for folder in DOCS.iterdir()
    }


def places() -> list[str]:
    """The workflows that nodes are shown in, the one that trains for others first."""
    return sorted(set(shown_in().values()), key=lambda name: (name != FIRST, name))


@pytest.mark.parametrize("name", places())
def test_pictures(tidy_page: Page, mini_server: ComfyServer, name: str) -> None:
    workflow = json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
    tidy_page.evaluate(LOAD, workflow)
    tidy_page.wait_for_timeout(1500)
    if name in SHOWN_IN.values():
        run_small(tidy_page, mini_server, name)
    if name == "02 ZipLoRA merge":
        tidy_page.evaluate(ALL)
        tidy_page.wait_for_timeout(2000)
        canvas = Image.open(io.BytesIO(tidy_page.screenshot(clip=tidy_page.evaluate(ALL))))
        canvas.thumbnail((1700, 1700), Image.Resampling.LANCZOS)
        canvas.convert("RGB").save(GUIDE, quality=80)
    for node_id in sorted(node for node, place in shown_in().items() if place == name):
        box: Box = tidy_page.evaluate(LOOK_AT, node_id)
        tidy_page.wait_for_timeout(1000)
        tidy_page.evaluate(NO_FRAMES)
        tidy_page.wait_for_timeout(500)
        save(node_id, tidy_page.screenshot(clip=box))


def run_small(page: Page, server: ComfyServer, name: str) -> None:
    """Run a workflow with the miniature SDXL; then it looks as shipped, with what came out."""
    subject, style = newest(server, "mini_subject"), newest(server, "mini_style")
    usual = [[str(BASE), "ComfyUI"], [subject, "my_subject.safetensors"],
             [style, "my_style.safetensors"]]  # fmt: skip
    loras: dict[str, Json] = {
        "LoadLoRAPair": {"content_lora": subject, "style_lora": style},
        "PlotWeights": {"lora": subject}, "PruneLoRA": {"lora": subject},
        "The whole LoRA": {"lora_name": subject},
    }  # fmt: skip
    if name == "15 Use a slider":
        trained = newest(server, "age_slider")
        loras["ConceptSlider"] = {"slider": trained}
        usual += [[trained, "age_slider_00001_.safetensors"]]
    shipped = page.evaluate(VALUES)
    links = page.evaluate(UNLINK)
    page.evaluate(OVERRIDE, {**OVERRIDES, **loras})
    page.evaluate(ALL)  # panels that are not seen draw nothing
    run(page)
    wait_until_idle(server)
    page.wait_for_timeout(3000)
    page.evaluate(PUT_BACK, [shipped, KEPT, usual])
    page.evaluate(LINK, links)


def newest(server: ComfyServer, prefix: str) -> str:
    """The LoRA that was saved last under this prefix."""
    return max((server.output / "loras").glob(f"{prefix}_0*")).name


def wait_until_idle(server: ComfyServer) -> None:
    """Wait until nothing is queued any more, and all went well."""
    time.sleep(2)
    while any(server.get("/queue").values()):
        time.sleep(1)
    last = list(server.get("/history").values())[-1]["status"]
    assert last["status_str"] == "success", last["messages"][-1]


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
