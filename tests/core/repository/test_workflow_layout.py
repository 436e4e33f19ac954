"""The shipped workflows read from left to right, and look alike."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from sandbox.paths import ROOT

FILES = sorted((ROOT / "workflows").glob("*.json"))
TITLES = {file.stem for file in FILES}
LEGIBLE = 8 / 14
"""The frontend's canvas draws no words where their 14 pixels become less than 8."""
SIDEBAR, TOP_BAR = 60, 100
"""Pixels at the left and the top of the page that the frontend covers."""
PROMPT, NEGATIVE = ("#232", "#353"), ("#322", "#533")
Node = dict[str, Any]


@pytest.fixture(params=FILES, ids=[file.stem for file in FILES])
def workflow(request: pytest.FixtureRequest) -> Node:
    return json.loads(request.param.read_text(encoding="utf-8"))


def links(workflow: Node) -> list[tuple[Node, Node, str]]:
    """Return the two nodes of each link, and the input's name."""
    nodes = {node["id"]: node for node in workflow["nodes"]}
    return [
        (nodes[origin], nodes[target], nodes[target]["inputs"][slot]["name"])
        for _, origin, _, target, slot, _ in workflow["links"]
    ]


def test_links_run_from_left_to_right_or_down_a_column(workflow: Node) -> None:
    for origin, target, name in links(workflow):
        (x, y), (right, _) = origin["pos"], target["pos"]
        apart = right >= x + origin["size"][0]
        assert apart or (right == x and target["pos"][1] > y), (target["type"], name)


def test_words_are_drawn_at_the_zoom_a_workflow_opens_with(workflow: Node) -> None:
    assert LEGIBLE < workflow["extra"]["ds"]["scale"] <= 1


def test_a_workflow_opens_with_its_first_corner_clear_of_the_bars(workflow: Node) -> None:
    view, groups = workflow["extra"]["ds"], workflow["groups"]
    corners = [group["bounding"][:2] for group in groups] or [n["pos"] for n in workflow["nodes"]]
    left, top = (
        (min(corner[side] for corner in corners) + view["offset"][side]) * view["scale"]
        for side in (0, 1)
    )
    assert SIDEBAR < left < 2 * SIDEBAR and TOP_BAR < top < 2 * TOP_BAR


def test_images_are_saved_right_of_where_they_are_decoded(workflow: Node) -> None:
    for origin, target, _ in links(workflow):
        if (origin["type"], target["type"]) == ("VAEDecode", "SaveImage"):
            assert target["pos"][0] > origin["pos"][0]


def test_prompts_have_titles_and_one_color_and_negative_ones_another(workflow: Node) -> None:
    negative = {origin["id"] for origin, _, name in links(workflow) if name == "negative"}
    for node in workflow["nodes"]:
        if node["type"] == "CLIPTextEncode":
            is_negative = node["id"] in negative
            assert re.match(r"Negative prompt$|([\w ]+ p|P)rompt: ", node["title"])
            assert node["title"].startswith("Negative") == is_negative
            assert (node["color"], node["bgcolor"]) == (NEGATIVE if is_negative else PROMPT)


def test_files_of_other_workflows_are_named_in_a_note(workflow: Node) -> None:
    """Those that a node of this pack loads and that no workflow's reader has by chance."""
    notes = " ".join(
        node["widgets_values"][0] for node in workflow["nodes"] if node["type"] == "MarkdownNote"
    )
    values = [value for node in workflow["nodes"] for value in node.get("widgets_values") or ()]
    numbered = [value for value in values if re.search(r"_\d{5}_\.safetensors", str(value))]
    named = {name for name in re.findall(r"\*([\w ]+)\*", notes) if name in TITLES}
    assert named or not numbered, numbered
