"""Nodes show the inputs that count, and are no higher than what they have to show."""

from __future__ import annotations

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from sandbox.server import ComfyServer

from .pages import DISPATCH, MERGE, SET_VUE, drop, look_at, message, panel, shoot

HIGHEST = 900
ADD = """
    (type) => {
        const node = LiteGraph.createNode(type);
        app.graph.add(node);
        node.pos = [100, 100];
        return node.id;
    }
"""
HEIGHTS = """
    (id) => {
        const drawn = document.querySelector(`[data-node-id="${id}"]`);
        const seen = drawn ? drawn.getBoundingClientRect().height / app.canvas.ds.scale : 0;
        return [app.graph.getNodeById(id).size[1], seen];
    }
"""
SHOWN = """
    ([id, names]) => {
        const node = app.graph.getNodeById(id);
        const drawn = document.querySelector(`[data-node-id="${id}"]`);
        return names.filter((name) => drawn
            ? [...drawn.querySelectorAll(".lg-node-widget")].some((row) =>
                row.innerText.split("\\n")[0] === name)
            : node.isWidgetVisible(node.widgets.find((widget) => widget.name === name)));
    }
"""
CHOOSE = """
    ([id, name, value]) => {
        const widget = app.graph.getNodeById(id).widgets.find((w) => w.name === name);
        widget.value = value;
        widget.callback?.(value, app.canvas, app.graph.getNodeById(id));
    }
"""
VALUES = """
    (id) => Object.fromEntries(app.graph.getNodeById(id).widgets.map((w) => [w.name, w.value]))
"""
QUEUED = "async (id) => (await app.graphToPrompt()).output[id].inputs"
STEPPED = ["steps", "learning_rate", "similarity", "similarity_weight"]
SOLVED = ["passes", "calibration_states"]
CHOICES: list[tuple[str, str, dict[str, list[str]]]] = [
    (
        "ZipLoRAOptimize", "solver",
        {"closed_form": SOLVED, "adam": STEPPED, "closed_form_then_adam": [*STEPPED, *SOLVED],
         "adam_as_published": []},
    ),
    (
        "MergeLoRAs", "method",
        {"direct": [], "null_space": ["mu"], "ties": ["density"], "knots": ["density"],
         "block_masks": ["block_preset"]},
    ),
]  # fmt: skip


def see_inputs(page: Page, node: int, names: list[str], shown: list[str]) -> None:
    """Wait until just `shown` of some inputs are to be seen."""
    now: list[str] = []
    for _ in range(100):
        now = sorted(page.evaluate(SHOWN, [node, names]))
        if now == sorted(shown):
            return
        page.wait_for_timeout(100)
    assert now == sorted(shown)


@pytest.fixture
def trainers(server: ComfyServer) -> list[str]:
    """All nodes with a seed and a report, trainers and searches among them."""
    return [
        name
        for name, node in server.object_info().items()
        if node["category"].startswith("ZipLoRA/") and "report" in node["output_name"]
    ]


def test_no_new_node_is_higher_than_the_window(
    tab: Page, renderer: str, trainers: list[str]
) -> None:
    heights: dict[str, Any] = {}
    for node_type in trainers:
        node = tab.evaluate(ADD, node_type)
        tab.wait_for_timeout(100)
        heights[node_type] = tab.evaluate(HEIGHTS, node)
    assert len(heights) > 15
    assert {t: h for t, h in heights.items() if max(h) > HIGHEST} == {}
    shoot(tab, f"{renderer}_new_nodes")


@pytest.mark.parametrize(("node_type", "choice", "by_value"), CHOICES)
def test_inputs_follow_the_choice_and_all_are_queued(
    tab: Page, renderer: str, node_type: str, choice: str, by_value: dict[str, list[str]]
) -> None:
    node = tab.evaluate(ADD, node_type)
    every = sorted({name for names in by_value.values() for name in names})
    low, _ = tab.evaluate(HEIGHTS, node)
    for value, names in by_value.items():
        tab.evaluate(CHOOSE, [node, choice, value])
        see_inputs(tab, node, every, names)
        assert set(every) <= set(tab.evaluate(QUEUED, str(node)))
    tab.evaluate(CHOOSE, [node, choice, next(iter(by_value))])
    tab.wait_for_timeout(300)
    assert tab.evaluate(HEIGHTS, node)[0] <= low + 40  # rows are higher in Nodes 2.0


def test_advanced_inputs_are_shown_on_demand(tab: Page, renderer: str) -> None:
    node = tab.evaluate(ADD, "ZipLoRAOptimize")
    tab.wait_for_timeout(300)
    some = ["layers", "memory", "joint_weight", "ridge"]
    see_inputs(tab, node, some, [])
    low, _ = tab.evaluate(HEIGHTS, node)
    if renderer == "vue":
        look_at(tab, "ZipLoRAOptimize")
        tab.get_by_text("Show advanced inputs").click()
    else:  # the entry of the menu
        tab.evaluate("(id) => app.graph.getNodeById(id).toggleAdvanced()", node)
    see_inputs(tab, node, some, some)
    see_inputs(tab, node, STEPPED, [])
    if renderer == "canvas":
        high, _ = tab.evaluate(HEIGHTS, node)
        for expected in (low, high, low):
            tab.evaluate("(id) => app.graph.getNodeById(id).toggleAdvanced()", node)
            tab.wait_for_timeout(200)
            assert tab.evaluate(HEIGHTS, node)[0] == pytest.approx(expected, abs=1)


def test_advanced_inputs_can_be_shown_after_a_switch_to_nodes_2(tab: Page) -> None:
    tab.evaluate(SET_VUE, False)
    node = tab.evaluate(ADD, "ZipLoRAOptimize")
    see_inputs(tab, node, ["layers", "ridge"], [])
    tab.evaluate(SET_VUE, True)
    look_at(tab, "ZipLoRAOptimize")
    tab.get_by_text("Show advanced inputs").click()
    see_inputs(tab, node, ["layers", "ridge"], ["layers", "ridge"])
    tab.evaluate(SET_VUE, False)


def test_empty_panels_take_little_room_until_they_are_filled(tab: Page, renderer: str) -> None:
    node = tab.evaluate(ADD, "ZipLoRAOptimize")
    tab.wait_for_timeout(300)
    low, _ = tab.evaluate(HEIGHTS, node)
    shown = panel(tab, "Training of ZipLoRA Optimize")
    expect(shown.get_by_text("Loss, pace and memory appear here.")).to_be_visible()
    expect(shown.get_by_text("Stop and keep")).to_be_hidden()
    tab.evaluate(DISPATCH, message(tab, "ZipLoRAOptimize", 9))
    expect(shown.get_by_text("Stop and keep")).to_be_visible()
    assert tab.evaluate(HEIGHTS, node)[0] > low + 100
    drop(tab, MERGE)  # its nodes have kept the room
    look_at(tab, "ZipLoRAOptimize")
    expect(shown.get_by_text("Stop and keep")).to_be_visible()


def test_presets_fill_in_the_training_options(tab: Page, renderer: str) -> None:
    node = tab.evaluate(ADD, "TrainingOptions")
    published = tab.evaluate(VALUES, node)
    tab.evaluate(CHOOSE, [node, "preset", "fast"])
    fast = tab.evaluate(VALUES, node)
    assert (fast["held_out_draws"], fast["sample_every"]) == (4, 0)
    tab.evaluate(CHOOSE, [node, "held_out_draws", 5])
    assert tab.evaluate(VALUES, node) == fast | {"held_out_draws": 5, "preset": "custom"}
    tab.evaluate(CHOOSE, [node, "preset", "as published"])
    assert tab.evaluate(VALUES, node) == published | {"preset": "as published"}
    tab.evaluate(CHOOSE, [node, "preset", "low memory"])
    assert tab.evaluate(VALUES, node)["batch"] == 1
    assert "preset" not in tab.evaluate(QUEUED, str(node))  # the same values are the same inputs


def test_figures_are_queued_in_the_colors_of_the_page_unless_others_are_chosen(
    tab: Page, renderer: str
) -> None:
    node = tab.evaluate(ADD, "PlotWeights")
    palette = "(id) => app.extensionManager.setting.set('Comfy.ColorPalette', id)"
    for page in ("light", "dark"):
        tab.evaluate(palette, page)
        assert tab.evaluate(VALUES, node)["theme"] == "page"  # what is saved
        assert tab.evaluate(QUEUED, str(node))["theme"] == page
    tab.evaluate(CHOOSE, [node, "theme", "light"])
    assert tab.evaluate(QUEUED, str(node))["theme"] == "light"
