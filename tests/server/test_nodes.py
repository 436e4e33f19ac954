"""Every node of the pack can be found, understood and tried: what a person meets in ComfyUI."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sandbox.paths import ROOT
from sandbox.server import ComfyServer

Json = dict[str, Any]

WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
LANGUAGES = ("en", "zh")


@pytest.fixture(scope="module")
def nodes(server: ComfyServer) -> dict[str, Json]:
    """The pack's nodes as ComfyUI describes them."""
    return {
        node_id: node
        for node_id, node in server.object_info().items()
        if node["python_module"] == "custom_nodes.ziplora"
    }


def inputs(node: Json) -> dict[str, list[Any]]:
    return {
        name: spec
        for group in ("required", "optional")
        for name, spec in node["input"].get(group, {}).items()
    }


def is_widget(spec: list[Any]) -> bool:
    return isinstance(spec[0], list) or spec[0] in WIDGETS


def test_nodes_all_have_help_pages_in_every_language(
    nodes: dict[str, Json], server: ComfyServer
) -> None:
    for node_id in nodes:
        for language in LANGUAGES:
            page = server.get(f"/extensions/ziplora/docs/{node_id}/{language}.md").decode()
            assert page.startswith(f"# {nodes[node_id]['display_name']}"), (node_id, language)


def test_help_pages_name_every_input_and_output(
    nodes: dict[str, Json], server: ComfyServer
) -> None:
    for node_id, node in nodes.items():
        for language in LANGUAGES:
            page = server.get(f"/extensions/ziplora/docs/{node_id}/{language}.md").decode()
            for name in (*inputs(node), *node["output_name"]):
                assert f"**{name}**" in page, (node_id, language, name)


def test_help_pages_belong_to_a_node(nodes: dict[str, Json]) -> None:
    assert {folder.name for folder in (ROOT / "js" / "docs").iterdir()} == set(nodes)


def test_nodes_all_have_category_description_and_aliases(nodes: dict[str, Json]) -> None:
    for node_id, node in nodes.items():
        assert node["category"].startswith("ZipLoRA/"), node_id
        assert len(node["description"]) > 40, node_id
        assert node["search_aliases"], node_id


def test_widgets_all_have_a_tooltip(nodes: dict[str, Json]) -> None:
    bare = [
        f"{node_id}.{name}"
        for node_id, node in nodes.items()
        for name, spec in inputs(node).items()
        if is_widget(spec) and not spec[1].get("tooltip")
    ]
    assert bare == []


def test_nodes_all_appear_in_a_workflow(nodes: dict[str, Json]) -> None:
    files = (ROOT / "workflows").glob("*.json")
    workflows = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    used = {node["type"] for workflow in workflows for node in workflow["nodes"]}
    assert set(nodes) <= used


def test_nodes_are_those_of_the_design(nodes: dict[str, Json]) -> None:
    assert {
        "LoadLoRAPair",
        "LoadMergedLoRA",
        "ZipLoRAOptimize",
        "TrainingOptions",
        "MergeLoRAs",
        "ApplyMergedLoRA",
        "SaveMergedLoRA",
        "SaveTrainedLoRA",
    } <= set(nodes)
