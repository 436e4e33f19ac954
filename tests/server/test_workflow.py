"""The converter does what the frontend does, checked against the nodes of the running ComfyUI."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from sandbox.paths import ROOT
from sandbox.server import ComfyServer
from sandbox.workflow import BYPASSED, MUTED, WorkflowError, to_prompt

Json = dict[str, Any]


def slot(name: str, kind: str, link: int | None) -> Json:
    return {"name": name, "type": kind, "link": link}


WORKFLOW: Json = {
    "nodes": [
        {
            "id": 1,
            "type": "CheckpointLoaderSimple",
            "widgets_values": ["sd_xl_base_1.0.safetensors"],
        },
        {
            "id": 2,
            "type": "CLIPTextEncode",
            "title": "Positive",
            "inputs": [slot("clip", "CLIP", 1)],
            "widgets_values": ["a dog"],
        },
        {"id": 3, "type": "Reroute", "inputs": [slot("", "*", 2)]},
        {"id": 4, "type": "EmptyLatentImage", "widgets_values": [1024, 1024, 1]},
        {
            "id": 5,
            "type": "LoraLoaderModelOnly",
            "inputs": [slot("model", "MODEL", 6)],
            "widgets_values": ["my_style.safetensors", 0.5],
        },
        {
            "id": 6,
            "type": "KSampler",
            "inputs": [
                slot("model", "MODEL", 7),
                slot("positive", "CONDITIONING", 3),
                slot("negative", "CONDITIONING", 4),
                slot("latent_image", "LATENT", 5),
            ],
            "widgets_values": [7, "fixed", 30, 5.0, "euler", "normal", 1.0],
        },
        {
            "id": 7,
            "type": "VAEDecode",
            "inputs": [slot("samples", "LATENT", 8), slot("vae", "VAE", 9)],
        },
        {
            "id": 8,
            "type": "SaveImage",
            "inputs": [slot("images", "IMAGE", 10)],
            "widgets_values": ["converted"],
        },
        {"id": 9, "type": "MarkdownNote", "widgets_values": ["# A note"]},
    ],
    "links": [
        [1, 1, 1, 2, 0, "CLIP"],
        [2, 2, 0, 3, 0, "CONDITIONING"],
        [3, 3, 0, 6, 1, "CONDITIONING"],
        {
            "id": 4,
            "origin_id": 2,
            "origin_slot": 0,
            "target_id": 6,
            "target_slot": 2,
            "type": "CONDITIONING",
        },
        [5, 4, 0, 6, 3, "LATENT"],
        [6, 1, 0, 5, 0, "MODEL"],
        [7, 5, 0, 6, 0, "MODEL"],
        [8, 6, 0, 7, 0, "LATENT"],
        [9, 1, 2, 7, 1, "VAE"],
        [10, 7, 0, 8, 0, "IMAGE"],
    ],
}
SMALL = {"KSampler": {"steps": 2}, "EmptyLatentImage": {"width": 64, "height": 64}}


@pytest.fixture
def workflow() -> Json:
    return copy.deepcopy(WORKFLOW)


@pytest.fixture(scope="module")
def object_info(server: ComfyServer) -> Json:
    return server.object_info()


def node(workflow: Json, node_id: int) -> Json:
    return next(n for n in workflow["nodes"] if n["id"] == node_id)


def test_to_prompt_converted_workflow_runs(
    server: ComfyServer, workflow: Json, object_info: Json
) -> None:
    result = server.run(to_prompt(workflow, object_info, SMALL))
    assert result.status == "success"
    assert result.outputs["8"]["images"][0]["filename"].startswith("converted")


def test_to_prompt_seed_control_and_reroute_are_passed_over(
    workflow: Json, object_info: Json
) -> None:
    prompt = to_prompt(workflow, object_info)
    sampler = prompt["6"]["inputs"]
    assert (sampler["seed"], sampler["steps"], sampler["sampler_name"]) == (7, 30, "euler")
    assert sampler["positive"] == ["2", 0]
    assert "3" not in prompt and "9" not in prompt


def test_to_prompt_override_takes_the_place_of_a_value_from_outside_a_subgraph(
    object_info: Json,
) -> None:
    starter = json.loads(
        (ROOT / "workflows" / "01 Subject in style.json").read_text(encoding="utf-8")
    )
    shipped, small = (
        [n["inputs"] for n in to_prompt(starter, object_info, overrides).values()
         if n["class_type"] == "EmptyLatentImage"]
        for overrides in (None, {"EmptyLatentImage": {"width": 64}})
    )  # fmt: skip
    assert [(n["width"], n["height"]) for n in (*shipped, *small)] == [(1024, 1024), (64, 1024)]


def test_to_prompt_bypassed_node_passes_its_input_on(workflow: Json, object_info: Json) -> None:
    node(workflow, 5)["mode"] = BYPASSED
    prompt = to_prompt(workflow, object_info)
    assert "5" not in prompt
    assert prompt["6"]["inputs"]["model"] == ["1", 0]


def test_to_prompt_muted_node_leaves_its_targets_unconnected(
    workflow: Json, object_info: Json
) -> None:
    node(workflow, 5)["mode"] = MUTED
    assert "model" not in to_prompt(workflow, object_info)["6"]["inputs"]


def test_to_prompt_override_by_title_wins_over_class(workflow: Json, object_info: Json) -> None:
    overrides = {"CLIPTextEncode": {"text": "a cat"}, "Positive": {"text": "a bird"}}
    assert to_prompt(workflow, object_info, overrides)["2"]["inputs"]["text"] == "a bird"


def test_to_prompt_unknown_node_is_named(workflow: Json, object_info: Json) -> None:
    node(workflow, 5)["type"] = "NoSuchNode"
    with pytest.raises(WorkflowError, match=r"node 5 \(NoSuchNode\): ComfyUI does not know"):
        to_prompt(workflow, object_info)


def test_to_prompt_missing_widget_value_is_refused(workflow: Json, object_info: Json) -> None:
    node(workflow, 6)["widgets_values"].pop()
    with pytest.raises(WorkflowError, match=r"found 6 widget values .* expected 7: seed, "):
        to_prompt(workflow, object_info)


def test_to_prompt_value_outside_combo_is_refused(workflow: Json, object_info: Json) -> None:
    node(workflow, 5)["widgets_values"][0] = "missing.safetensors"
    with pytest.raises(WorkflowError, match=r"`lora_name` is 'missing.safetensors'"):
        to_prompt(workflow, object_info)


def test_to_prompt_override_of_unknown_input_is_refused(workflow: Json, object_info: Json) -> None:
    with pytest.raises(WorkflowError, match="an input `size`"):
        to_prompt(workflow, object_info, {"EmptyLatentImage": {"size": 64}})
