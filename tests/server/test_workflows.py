"""Every shipped workflow runs as it is on a fresh ComfyUI; only size and steps are made small."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from sandbox.overrides import OVERRIDES
from sandbox.paths import ROOT
from sandbox.server import ComfyServer, Result, fresh_base
from sandbox.workflow import to_prompt

Json = dict[str, Any]

FILES = sorted((ROOT / "workflows").glob("*.json"))
NAMES = [file.stem for file in FILES]
SDXL_VALUES = {
    "EmptyLatentImage": {"width": 1024, "height": 1024, "batch_size": 1},
    "KSampler": {"steps": 25, "cfg": 7.0, "denoise": 1.0},
    "ZipLoRAOptimize": {"width": 1024, "height": 1024, "steps": 100, "learning_rate": 0.01},
}
CHANGEABLE = {"steps", "width", "height", "text"}
"""What an override may touch."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """A ComfyUI of this module's own: its first merge gets the number the workflows name."""
    with ComfyServer(fresh_base(tmp_path_factory.mktemp("workflows"))) as running:
        yield running


@pytest.fixture(scope="module")
def merge_run(server: ComfyServer) -> Result:
    """What ziplora_merge.json does; the other workflows use the file it saves."""
    return server.run(prompt_of("ziplora_merge", server, OVERRIDES))


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest, merge_run: Result) -> str:
    """Each workflow in turn, on a server where the merge has been learned and saved."""
    return request.param


def read(name: str) -> Json:
    return json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))


def prompt_of(name: str, server: ComfyServer, overrides: Json | None = None) -> Json:
    return to_prompt(read(name), server.object_info(), overrides)


def nodes(prompt: Json, class_type: str) -> dict[str, Json]:
    return {key: n["inputs"] for key, n in prompt.items() if n["class_type"] == class_type}


def test_workflow_converted_and_run_shows_all_outputs(
    name: str, server: ComfyServer, merge_run: Result
) -> None:
    prompt = prompt_of(name, server, OVERRIDES)
    result = merge_run if name == "ziplora_merge" else server.run(prompt)
    assert (result.status, result.error) == ("success", None)
    info = server.object_info()
    shown = {key for key, n in prompt.items() if info[n["class_type"]]["output_node"]}
    assert shown and shown <= set(result.outputs)
    for key in nodes(prompt, "SaveImage"):
        (image,) = result.outputs[key]["images"]
        assert (server.output / image["filename"]).stat().st_size > 500


def test_merge_workflow_saves_the_file_that_apply_workflow_names(
    merge_run: Result, server: ComfyServer
) -> None:
    (saved,) = nodes(prompt_of("apply_saved_merge", server), "LoadMergedLoRA").values()
    assert (server.output / "loras" / saved["merged_lora"]).is_file()
    assert saved["merged_lora"] in str(merge_run.outputs)


def test_merge_workflow_run_reports_retention_and_previews(
    merge_run: Result, server: ComfyServer
) -> None:
    (node_id,) = nodes(prompt_of("ziplora_merge", server), "ZipLoRAOptimize")
    (report,) = merge_run.outputs[node_id]["text"]
    assert "retention on held-out noise" in report and "WARNING" not in report
    assert merge_run.previews


def test_workflow_values_are_those_of_sdxl(name: str, server: ComfyServer) -> None:
    prompt = prompt_of(name, server)
    for class_type, expected in SDXL_VALUES.items():
        for inputs in nodes(prompt, class_type).values():
            assert {key: inputs[key] for key in expected} == expected
    assert nodes(prompt, "EmptyLatentImage")


def test_merge_workflow_settings_are_the_defaults(server: ComfyServer) -> None:
    prompt, info = prompt_of("ziplora_merge", server), server.object_info()
    for class_type in ("ZipLoRAOptimize", "TrainingOptions"):
        (inputs,) = nodes(prompt, class_type).values()
        groups = info[class_type]["input"]
        specs = {**groups.get("required", {}), **groups.get("optional", {})}
        widgets = {key: value for key, value in inputs.items() if not isinstance(value, list)}
        assert widgets == {key: specs[key][1]["default"] for key in widgets}


def test_workflow_file_is_what_the_frontend_writes(name: str) -> None:
    workflow = read(name)
    assert workflow["version"] == 0.4
    assert {"nodes", "links", "groups", "extra"} <= set(workflow)
    assert not workflow.get("definitions")
    assert any(node["type"] == "MarkdownNote" for node in workflow["nodes"])
    thumbnail = ROOT / "workflows" / f"{name}.jpg"
    assert thumbnail.read_bytes()[:2] == b"\xff\xd8" and thumbnail.stat().st_size <= 100_000


def test_workflow_nodes_and_groups_do_not_overlap(name: str) -> None:
    workflow = read(name)
    for boxes in (
        [(*node["pos"], *node["size"]) for node in workflow["nodes"]],
        [tuple(group["bounding"]) for group in workflow["groups"]],
    ):
        for i, (x, y, width, height) in enumerate(boxes):
            for u, v, other_width, other_height in boxes[i + 1 :]:
                apart = x + width <= u or u + other_width <= x
                assert apart or y + height <= v or v + other_height <= y


def test_overrides_touch_only_size_steps_and_prompts() -> None:
    assert {key for inputs in OVERRIDES.values() for key in inputs} <= CHANGEABLE
