"""The blueprint "Subject in style", one node that holds the whole merge, and its starter."""

from __future__ import annotations

import json
from typing import Any

from playwright.sync_api import Page, expect

from sandbox.paths import ROOT
from sandbox.server import ComfyServer
from sandbox.workflow import to_prompt

from .pages import (
    COMMAND,
    DISPATCH,
    MISSING,
    RUN_MS,
    SET_VUE,
    chart_of,
    contains,
    drop,
    look_at,
    message,
    override,
    panel,
    report,
    run,
    shoot,
)
from .test_past import close_tab, open_tab

Json = dict[str, Any]

NAME = "Subject in style"
FILE = ROOT / "subgraphs" / f"{NAME}.json"
STARTER = ROOT / "workflows" / "01 Subject in style.json"
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
        const values = { prompt: "a sks dog on the moon", seed: 7, width: 128, height: 128 };
        for (const [name, value] of Object.entries(values)) {
            merge.widgets.find((w) => w.name === name).value = value;
        }
        checkpoint.widgets[0].value = "sd_xl_base_1.0.safetensors";
    }
"""
INSIDE = """
    (inside) => {
        const [merge] = app.rootGraph.nodes.filter((node) => node.subgraph);
        app.canvas.setGraph(inside ? merge.subgraph : app.rootGraph);
    }
"""
INNER = """
    (type) => {
        const [outer] = app.rootGraph.nodes.filter((node) => node.subgraph);
        return `${outer.id}:${outer.subgraph.nodes.find((node) => node.type === type).id}`;
    }
"""
SET_OUTSIDE = """
    (values) => {
        const [merge] = app.rootGraph.nodes.filter((node) => node.subgraph);
        for (const [name, value] of Object.entries(values)) {
            merge.widgets.find((w) => w.name === name).value = value;
        }
    }
"""
PICTURE = (
    "() => Object.values(app.nodeOutputs).some((o) => o.images?.some((i) => i.type === 'output'))"
)
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


def test_blueprint_found_is_put_on_the_canvas_with_all_its_nodes(tab: Page) -> None:
    tab.evaluate(COMMAND, "Comfy.NewBlankWorkflow")
    tab.wait_for_function("() => app.graph.nodes.length === 0")
    tab.evaluate(COMMAND, "Workspace.SearchBox.Toggle")  # as a double click does
    tab.get_by_role("combobox").fill(NAME)
    tab.get_by_role("option", name=NAME).first.click()
    tab.wait_for_function("() => app.graph.nodes.length === 1")
    expect(tab.get_by_role("combobox")).to_have_count(0)
    tab.locator("#graph-canvas").click(position={"x": 800, "y": 300})  # where it is to stay
    tab.wait_for_function("() => app.canvas.state.ghostNodeId === null")
    tab.evaluate(CONNECT)
    shoot(tab, "blueprint")
    prompt = tab.evaluate(PROMPT)
    classes = [node["class_type"] for node in prompt.values()]
    subgraph = json.loads(FILE.read_text(encoding="utf-8"))["definitions"]["subgraphs"][0]
    inner = [node["type"] for node in subgraph["nodes"] if node["type"] != "MarkdownNote"]
    assert sorted(classes) == sorted([*inner, "CheckpointLoaderSimple", "SaveImage"])
    (sampler,) = inputs(prompt, "KSampler")
    assert sampler["seed"] == 7
    assert "a sks dog on the moon" in [text["text"] for text in inputs(prompt, "CLIPTextEncode")]


def test_starter_dropped_and_run_draws_and_reports_outside_the_one_node(
    tab: Page, server: ComfyServer
) -> None:
    server.free()
    drop(tab, STARTER)
    assert tab.evaluate(MISSING) == []
    shoot(tab, "starter")
    prompt = tab.evaluate(PROMPT)
    for node in prompt.values():
        node["_meta"].pop("title")
    expected = to_prompt(json.loads(STARTER.read_text(encoding="utf-8")), server.object_info())
    for node in expected.values():
        node["_meta"].pop("title")
    assert prompt == expected  # what the tests of workflows run is what the page queues

    see_outside(tab)
    tab.evaluate(SET_OUTSIDE, {"width": 128, "height": 128})
    tab.evaluate(INSIDE, True)
    override(tab, QUICK)
    tab.evaluate(INSIDE, False)
    run(tab)
    tab.wait_for_function(PICTURE, timeout=RUN_MS)
    told = tab.evaluate("() => Object.values(app.nodeOutputs).flatMap((o) => o.text ?? [])")
    assert sum("retention (error against" in str(text) for text in told) == 2  # in and outside
    tab.evaluate(INSIDE, True)
    learned = report(tab, "ZipLoRA Optimize")
    expect(learned).to_have_value(contains("retention (error against"))
    shown = panel(tab, "Training of ZipLoRA Optimize")
    expect(shown).to_contain_text("1 pass")
    expect(shown).to_contain_text("Finished")
    errors = contains("as a share of the direct merge's, pass 1: error ")
    expect(chart_of(shown)).to_have_attribute("aria-label", errors)
    mapped = panel(tab, "Map of ZipLoRA Optimize").locator(".plot > canvas")
    expect(mapped).to_have_attribute("aria-label", contains("how much of the content is kept"))
    look_at(tab, "ZipLoRAOptimize")
    shoot(tab, "starter_inside")
    tab.evaluate(SET_VUE, True)
    expect(chart_of(shown)).to_have_attribute("aria-label", errors)
    expect(mapped).to_be_visible()
    look_at(tab, "ZipLoRAOptimize")
    shoot(tab, "starter_inside_vue")
    tab.evaluate(INSIDE, False)
    shoot(tab, "starter_vue")


def see_outside(page: Page) -> None:
    """Look at a training within the one node from the sidebar."""
    inner = page.evaluate(INNER, "ZipLoRAOptimize")
    inside = {"node_id": inner, "kind": "ZipLoRAOptimize", "title": "Learn it"}
    told = message(page, "CheckpointLoaderSimple", 9, **inside)
    shown = open_tab(page)
    page.evaluate(DISPATCH, told)
    running = shown.get_by_role("group", name="Training of Learn it")
    expect(running).to_contain_text("step 9 of 400")
    expect(chart_of(running)).to_have_attribute("aria-label", contains("Loss, step 9: "))
    shoot(page, "starter_outside")
    expect(running.get_by_role("button", name="Stop and keep")).to_be_enabled()
    page.evaluate(DISPATCH, {**told, "state": "finished"})
    expect(running).to_have_count(0)
    close_tab(page)


def inputs(prompt: Json, class_type: str) -> list[Json]:
    """The inputs of every node of a class."""
    return [node["inputs"] for node in prompt.values() if node["class_type"] == class_type]
