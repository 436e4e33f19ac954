"""The blueprint "Subject in style": one node that holds the whole merge, on the canvas and run."""

from __future__ import annotations

import json
from typing import Any

from playwright.sync_api import Page

from sandbox.overrides import OVERRIDES
from sandbox.paths import ROOT
from sandbox.server import ComfyServer

from .pages import COMMAND, shoot

Json = dict[str, Any]

NAME = "Subject in style"
FILE = ROOT / "subgraphs" / f"{NAME}.json"
QUICK = {"ZipLoRAOptimize": {"passes": 1, "calibration_states": 2}}
CONNECT = """
    () => {
        const [merge] = app.graph.nodes;
        const checkpoint = LiteGraph.createNode("CheckpointLoaderSimple");
        const save = LiteGraph.createNode("SaveImage");
        app.graph.add(checkpoint);
        app.graph.add(save);
        checkpoint.pos = [merge.pos[0] - 380, merge.pos[1]];
        save.pos = [merge.pos[0] + 460, merge.pos[1]];
        for (const [slot, name] of ["model", "clip", "vae"].entries()) {
            checkpoint.connect(slot, merge, merge.inputs.findIndex((i) => i.name === name));
        }
        merge.connect(merge.outputs.findIndex((o) => o.name === "IMAGE"), save, 0);
        for (const [name, value] of [["prompt", "a sks dog on the moon"], ["seed", 7]]) {
            merge.widgets.find((w) => w.name === name).value = value;
        }
        checkpoint.widgets[0].value = "sd_xl_base_1.0.safetensors";
    }
"""
PROMPT = "async () => (await app.graphToPrompt()).output"


def test_blueprint_is_one_node_of_what_comfyui_knows(server: ComfyServer) -> None:
    listed = server.get("/global_subgraphs").items()
    (entry,) = [key for key, blueprint in listed if blueprint["name"] == NAME]
    blueprint = server.get(f"/global_subgraphs/{entry}")
    assert blueprint["info"]["node_pack"] == "custom_nodes.ziplora"
    workflow = json.loads(blueprint["data"])
    assert workflow == json.loads(FILE.read_text(encoding="utf-8"))
    (node,), (subgraph,) = workflow["nodes"], workflow["definitions"]["subgraphs"]
    assert node["type"] == subgraph["id"]
    known = {*server.object_info(), "MarkdownNote"}
    assert {inner["type"] for inner in subgraph["nodes"]} <= known


def test_blueprint_found_put_on_the_canvas_and_run_draws_a_picture(
    page: Page, server: ComfyServer
) -> None:
    page.evaluate(COMMAND, "Comfy.NewBlankWorkflow")
    page.wait_for_function("() => app.graph.nodes.length === 0")
    page.evaluate(COMMAND, "Workspace.SearchBox.Toggle")  # as a double click does
    page.get_by_role("combobox").fill(NAME)
    page.get_by_role("option", name=NAME).first.click()
    page.wait_for_function("() => app.graph.nodes.length === 1")
    page.mouse.click(800, 300)  # where it is to stay
    page.evaluate(CONNECT)
    shoot(page, "blueprint")

    prompt = page.evaluate(PROMPT)
    classes = [node["class_type"] for node in prompt.values()]
    subgraph = json.loads(FILE.read_text(encoding="utf-8"))["definitions"]["subgraphs"][0]
    inner = [node["type"] for node in subgraph["nodes"] if node["type"] != "MarkdownNote"]
    assert sorted(classes) == sorted([*inner, "CheckpointLoaderSimple", "SaveImage"])
    (sampler,) = inputs(prompt, "KSampler")
    assert sampler["seed"] == 7
    assert "a sks dog on the moon" in [text["text"] for text in inputs(prompt, "CLIPTextEncode")]

    for node in prompt.values():
        for table in (OVERRIDES, QUICK):
            node["inputs"] |= table.get(node["class_type"], {})
    result = server.run(prompt)
    assert result.status == "success", result.error
    reports = [out["text"][0] for out in result.outputs.values() if "text" in out]
    assert any("retention on held-out noise" in report for report in reports)
    assert any(out.get("images") for out in result.outputs.values())


def inputs(prompt: Json, class_type: str) -> list[Json]:
    """The inputs of every node of a class."""
    return [node["inputs"] for node in prompt.values() if node["class_type"] == class_type]
