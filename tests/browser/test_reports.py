"""A report can be read to its end, however long it is and whatever the fonts are, and it covers
nothing of its node; in both renderers."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from sandbox.overrides import OVERRIDES
from sandbox.paths import ROOT
from sandbox.server import ComfyServer, Result
from sandbox.workflow import to_prompt

from .fonts import in_every_font
from .pages import MERGE, PLACE, assert_readable, drop, look_at, report, shoot

Json = dict[str, Any]

LONG = (
    "08 Merge without training",
    *(
        pytest.param(name, marks=pytest.mark.thorough)
        for name in (
            "17 Split an image",
            "13 Train a slider from words",
            "14 Train a slider from images",
        )
    ),
)
"""Workflows with long reports; test_workflows.py has the others."""
TEXT = "\n".join(f"line {n} of a report with more to say than there is room for" for n in range(60))
PUT_OUT = """
    (outputs) => {
        for (const [node, output] of Object.entries(outputs)) {
            const detail = { node, display_node: node, output, prompt_id: "of a test" };
            app.api.dispatchEvent(new CustomEvent("executed", { detail }));
        }
    }
"""
"""The server's message when a node has run."""
NAMES = """
    (id) => {
        const node = app.graph.getNodeById(id);
        return [node.title, node.widgets.find((w) => w.name === "report").element.ariaLabel];
    }
"""
"""Sizes of a node and of its report."""
ALONE = """
    (type) => {
        app.graph.clear();
        const node = LiteGraph.createNode(type);
        app.graph.add(node);
        node.setSize(node.computeSize());
    }
"""
"""One node, in its smallest size."""
WITH_REPORT = """
    () => Object.keys(LiteGraph.registered_node_types).filter((type) => {
        const { nodeData } = LiteGraph.registered_node_types[type];
        if (!nodeData?.python_module?.includes("ziplora")) return false;
        return LiteGraph.createNode(type).widgets?.some((w) => w.name === "report");
    })
"""
LINES = """
    (report) => {
        const style = getComputedStyle(report);
        const [height, padding, line] = [style.minHeight, style.paddingTop, style.lineHeight]
            .map(parseFloat);
        return Math.floor((height - 2 * padding) / line);
    }
"""
"""How many of them are to be seen at once."""
COVERED = """
    (report) => {
        const [node] = app.graph.nodes;
        const { ds, canvas } = app.canvas;
        const onScreen = (y) =>
            (node.pos[1] + y + ds.offset[1]) * ds.scale + canvas.getBoundingClientRect().top;
        const span = (element) => {
            const { top, bottom } = element.getBoundingClientRect();
            return [top, bottom];
        };
        const holder = report.closest("[data-node-id]");
        const row = ({ y, computedHeight }) => [onScreen(y), onScreen(y + computedHeight)];
        const parts = holder
            ? [...holder.querySelectorAll("input, button, select, .lg-slot, .ziplora-panel")]
                .map((e) => [e.ariaLabel || e.className, ...span(e)])
            : node.widgets.filter((w) => w.name !== "report" && !w.hidden)
                .map((w) => [w.name, ...(w.element ? span(w.element) : row(w))]);
        const [top, bottom] = span(report);
        const [head, foot] = holder ? span(holder) : [onScreen(0), onScreen(node.size[1])];
        const covered = parts
            .filter(([, from, to]) => Math.min(to, bottom) - Math.max(from, top) > 1)
            .map(([name]) => `covers ${name}`);
        return top < head || bottom > foot ? [...covered, "leaves its node"] : covered;
    }
"""
"""Script: the parts of its node that a report covers, and whether it stays inside."""
WRITE = """
    (text) => {
        app.graph.nodes[0].widgets.find((w) => w.name === "report").value = text;
    }
"""
SHOWN = """
    (report) => ({
        hidden: report.scrollHeight - report.clientHeight,
        below: report.scrollHeight - report.clientHeight - report.scrollTop,
        bar: report.offsetWidth - report.clientWidth,
        cue: report.style.boxShadow !== "",
    })
"""
AT_ITS_START = """
    ({ scrollTop, style }) => scrollTop === 0 && style.boxShadow !== ""
"""
AT_ITS_END = """
    ({ scrollHeight, clientHeight, scrollTop, style }) =>
        Math.abs(scrollHeight - clientHeight - scrollTop) <= 1 && style.boxShadow === ""
"""


@pytest.fixture(scope="module")
def ran(server: ComfyServer) -> Callable[[str], Result]:
    """Runs a workflow by its name, once."""

    @functools.cache
    def run_once(name: str) -> Result:
        prompt = to_prompt(read(name), server.object_info(), OVERRIDES)
        result = server.run(prompt)
        assert result.status == "success", result.error
        return result

    return run_once


def read(name: str) -> Json:
    return json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))


@in_every_font
@pytest.mark.parametrize("name", LONG)
def test_reports_of_a_shipped_workflow_are_seen_whole(
    tab: Page, renderer: str, fonts: str, name: str, ran: Callable[[str], Result]
) -> None:
    outputs = {key: said for key, said in ran(name).outputs.items() if "text" in said}
    assert outputs
    drop(tab, ROOT / "workflows" / f"{name}.json")
    tab.evaluate(PUT_OUT, outputs)
    for key, said in outputs.items():
        title, label = tab.evaluate(NAMES, key)
        look_at(tab, title)
        shown = tab.get_by_label(label, exact=True)
        expect(shown).to_have_value(said["text"][0])
        assert_readable(shown)


@in_every_font
def test_report_longer_than_its_area_shows_so_and_scrolls_by_wheel_and_by_keys(
    tab: Page, renderer: str, fonts: str
) -> None:
    drop(tab, MERGE)
    tab.evaluate("() => { app.canvas.ds.offset[0] -= 9000; app.canvas.setDirty(true, true); }")
    tab.wait_for_timeout(500)
    optimize = tab.evaluate(PLACE, "ZipLoRAOptimize")[0]
    tab.evaluate(PUT_OUT, {optimize: {"text": [TEXT]}})  # while nobody looks
    look_at(tab, "ZipLoRAOptimize")
    shown = report(tab, "ZipLoRA Optimize")
    expect(shown).to_have_value(TEXT)
    seen = shown.evaluate(SHOWN)
    assert seen["below"] > 100
    assert seen["bar"] > 0 and seen["cue"]
    shoot(tab, f"{renderer}_{fonts}_long_report")

    scale = tab.evaluate("() => app.canvas.ds.scale")
    shown.click()  # in Nodes 2.0, only what has the focus gets the wheel
    do_until(shown, AT_ITS_END, lambda: shown.press("Control+End"))
    do_until(shown, AT_ITS_START, lambda: shown.press("Control+Home"))
    do_until(shown, AT_ITS_END, lambda: tab.mouse.wheel(0, 10_000))
    assert tab.evaluate("() => app.canvas.ds.scale") == scale

    tab.evaluate(PUT_OUT, {optimize: {"text": ["short"]}})
    expect(shown).to_have_value("short")
    assert shown.evaluate(SHOWN) == {"hidden": 0, "below": 0, "bar": 0, "cue": False}


def do_until(shown: Locator, reached: str, act: Callable[[], None]) -> None:
    """Repeat what a person does until it is seen: a busy browser misses a key or a turn."""
    for _ in range(40):
        act()
        shown.page.wait_for_timeout(250)
        if shown.evaluate(reached):
            return
    raise AssertionError(f"not {reached.strip()}: {shown.evaluate(SHOWN)}")


@in_every_font
def test_report_of_every_node_in_its_smallest_size_covers_nothing_and_shows_its_lines(
    tab: Page, renderer: str, fonts: str
) -> None:
    types = tab.evaluate(WITH_REPORT)
    assert len(types) == 25
    wrong = []
    for node_type in types:
        tab.evaluate(ALONE, node_type)
        look_at(tab, node_type)
        shown = tab.locator(".ziplora-report")
        expect(shown).to_have_count(1)
        tab.evaluate(WRITE, "line")  # it takes little room until it says something
        tab.wait_for_timeout(200)
        covered = shown.evaluate(COVERED)
        lines = shown.evaluate(LINES)
        tab.evaluate(WRITE, "\n".join(["line"] * lines))
        seen = shown.evaluate(SHOWN)
        if covered or seen["hidden"] > 0 or seen["cue"] or lines < 5:
            wrong.append((node_type, covered, lines, seen))
    assert wrong == []
