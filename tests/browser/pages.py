"""Actions and observations on the page, for all browser tests."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from playwright.sync_api import ConsoleMessage, Locator, Page, expect

from sandbox.overrides import OVERRIDES
from sandbox.paths import ROOT, SANDBOX

Said = tuple[str, str, str]
"""A line on the console: kind, text, address of the script."""
SHOTS = SANDBOX / "shots"
MERGE = ROOT / "workflows" / "02 ZipLoRA merge.json"
SLIDERS = ROOT / "workflows" / "15 Use a slider.json"
DREAMBOOTH = ROOT / "workflows" / "06 Train a subject LoRA.json"
RUN_MS = 180_000

RENDERERS = {"canvas": False, "vue": True}
SET_VUE = "(on) => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on)"
COMMAND = "(id) => app.extensionManager.command.execute(id)"
NEW_BLANK_WORKFLOW = "() => app.extensionManager.command.execute('Comfy.NewBlankWorkflow')"
NO_VEIL = "() => !document.querySelector('.p-blockui-mask')"
"""While the frontend's veil fades, nothing can be clicked; a file dropped meanwhile, sooner than a
person can, leaves the next one for good."""
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
MISSING = """
    () => app.graph.nodes
        .filter((node) => node.has_errors || !(node.type in LiteGraph.registered_node_types))
        .map((node) => node.type)
"""
OVERRIDE = """
    (overrides) => {
        for (const node of app.canvas.graph.nodes) {
            const values = { ...overrides[node.type], ...overrides[node.title] };
            for (const [name, value] of Object.entries(values)) {
                const widget = node.widgets.find((w) => w.name === name);
                widget.value = value;
                widget.callback?.(value, app.canvas, node);
            }
        }
    }
"""
CENTRE = """
    (name) => {
        const node = app.canvas.graph.nodes.find((n) => n.title === name || n.type === name);
        const { canvas, ds } = app.canvas;
        const width = canvas.width / devicePixelRatio, height = canvas.height / devicePixelRatio;
        ds.scale = Math.min(1, (height - 160) / (node.size[1] + 30));
        ds.offset[0] = width / ds.scale / 2 - node.pos[0] - node.size[0] / 2;
        ds.offset[1] = height / ds.scale / 2 - node.pos[1] - node.size[1] / 2;
        app.canvas.setDirty(true, true);
    }
"""
DISPATCH = "(detail) => app.api.dispatchEvent(new CustomEvent('ziplora.training', { detail }))"
PLACE = """
    (type) => [String(app.graph.nodes.find((node) => node.type === type).id), app.rootGraph.id]
"""
INK = """
    (canvas) => {
        const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
        return data.filter((value, n) => n % 4 === 3 && value > 0).length;
    }
"""


def listen(page: Page, said: list[Said]) -> None:
    """Collect what a page says on its console."""

    def hear(message: ConsoleMessage) -> None:
        address = str(message.location.get("url", "")).split("?")[0]
        said.append((message.type, message.text, re.sub(r"-\w+\.js$", ".js", address)))

    page.on("console", hear)
    page.on("pageerror", lambda error: said.append(("pageerror", str(error), "")))


def is_ours(line: Said) -> bool:
    """Whether a line on the console is about the pack, or nobody else's; not what the browser says
    of a request while a test has cut the line to the server."""
    kind, text, address = line
    cut = text.startswith("Failed to load resource: net::")
    return kind == "pageerror" or "ziplora" in text or ("/ziplora/" in address and not cut)


def drop(page: Page, path: Path) -> None:
    """Drop a file on the canvas and wait until its nodes are there."""
    text = path.read_text(encoding="utf-8")
    nodes = len(json.loads(text)["nodes"])
    page.wait_for_function(NO_VEIL)
    page.evaluate(DROP, [path.name, text])
    page.wait_for_function(f"() => app.graph.nodes.length === {nodes}", timeout=30_000)
    page.wait_for_function(NO_VEIL)


def override(page: Page, more: dict[str, dict[str, Any]] | None = None) -> None:
    """Set the sandbox's sizes, and `more`, by class or title of the nodes."""
    for table in (OVERRIDES, more or {}):
        page.evaluate(OVERRIDE, table)


def look_at(page: Page, node: str) -> None:
    """Move the canvas to a node, by its class or title, as large as it fits."""
    page.evaluate(CENTRE, node)
    page.wait_for_timeout(500)


def run(page: Page) -> None:
    """Press Run."""
    page.get_by_test_id("queue-button").click()


def panel(page: Page, name: str) -> Locator:
    return page.get_by_role("group", name=name, exact=True)


def report(page: Page, title: str) -> Locator:
    """The report on the node of that title."""
    return page.get_by_label(f"Report of {title}", exact=True)


def assert_readable(text: Locator) -> None:
    """All of a text area is on the screen, and all of its text in it."""
    expect(text).to_be_in_viewport(ratio=0.999)  # all, but for the browser's rounding
    hidden = text.evaluate("(element) => element.scrollHeight - element.clientHeight")
    assert hidden <= 0, f"{hidden} pixels of the report can only be seen by scrolling"


def chart_of(shown: Locator) -> Locator:
    """The loss curves on a training panel."""
    return shown.locator(".plot canvas")


def see_step(shown: Locator, step: int) -> None:
    """Wait until the chart of a training panel has come this far."""
    label = "(found) => found.map((canvas) => canvas.getAttribute('aria-label') ?? '').join()"
    for _ in range(RUN_MS // 100):
        if last_step(chart_of(shown).evaluate_all(label)) >= step:
            return
        shown.page.wait_for_timeout(100)
    raise AssertionError(f"no step {step} in {RUN_MS / 1000:.0f} s")


def last_step(label: str) -> int:
    """The last step of a chart, from what it says of itself; 0 without a chart."""
    found = re.search(r"step (\d+)", label)
    return int(found[1]) if found else 0


def message(page: Page, node_type: str, steps: int, **others: Any) -> dict[str, Any]:
    """Make a server's message about a training of this node after some steps."""
    node_id, workflow = page.evaluate(PLACE, node_type)
    numbers = list(range(1, steps + 1))
    values = [1 / n for n in numbers]
    said = {
        "run": f"run of {steps}", "node_id": node_id, "workflow": workflow, "kind": node_type,
        "title": "", "state": "running", "status": "estimated about 0.5 GiB", "step": steps,
        "steps": 400, "prepared": [3, 3], "speed": 2.0, "saved": [], "errors": [], "samples": [],
        "after": 0, "memory": [2**30, 2**33],
        "points": {"step": numbers, "loss": values, "content": values, "style": values},
    }  # fmt: skip
    return {**said, **others}


def contains(words: str) -> re.Pattern[str]:
    """A pattern for text with these words anywhere."""
    return re.compile(re.escape(words))


def shoot(page: Page, name: str) -> None:
    """Keep a picture of the page for people, where there are any."""
    if os.environ.get("CI") == "true":
        return
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.wait_for_timeout(500)
    page.screenshot(path=SHOTS / f"{name}.png")


def tab_to(page: Page, title: str) -> None:
    """Open another workflow's tab."""
    page.get_by_test_id("topbar-workflow-tabs").get_by_text(title).click()
