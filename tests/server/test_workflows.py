"""Every shipped workflow runs as it is on a fresh ComfyUI; only size and steps are made small."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.overrides import OVERRIDES, with_small_encoders
from sandbox.paths import ROOT
from sandbox.server import ComfyServer, Result, fresh_base
from sandbox.workflow import ACTIVE, MUTED, to_prompt

from .graph import Graph, assert_close, saved_latent, saved_path, succeeded

Json = dict[str, Any]
Run = Callable[[str], Result]

FILES = sorted((ROOT / "workflows").glob("*.json"))
NAMES = [file.stem for file in FILES]
SDXL_VALUES = {
    "EmptyLatentImage": {"width": 1024, "height": 1024, "batch_size": 1},
    "KSampler": {"steps": 25, "cfg": 7.0, "denoise": 1.0},
    "ZipLoRAOptimize": {"width": 1024, "height": 1024, "steps": 100, "learning_rate": 0.01},
    "TrainDreamBoothLoRA": {
        "resolution": 1024, "steps": 1000, "learning_rate": 5e-5, "rank": 64, "alpha": 64,
        "layers": "attention", "train_text_encoder": False,
    },
    "UnZipLoRATrain": {
        "resolution": 1024, "steps": 600, "rank": 64, "content_learning_rate": 5e-5,
        "style_learning_rate": 5e-5, "weight_learning_rate": 5e-3, "similarity_weight": 0.5,
        "column_separation": True, "block_separation": True, "sample_times": 3,
        "column_ratio": 0.1, "layers": "attention", "mergers": "learned",
    },
}  # fmt: skip
FAMILY_VALUES = {
    "24 Z-Image merge": ("EmptySD3LatentImage", 1024, {"steps": 8, "cfg": 1.0}),
    "25 Qwen-Image merge": ("EmptySD3LatentImage", 1328, {"steps": 20, "cfg": 2.5}),
    "26 FLUX.1 merge": ("EmptySD3LatentImage", 1024, {"steps": 20, "cfg": 1.0}),
}
"""What ComfyUI's templates of each family have."""
CHANGEABLE = {
    *("steps", "width", "height", "resolution", "text", "held_out_draws", "calibration_states"),
}
"""The inputs that an override may change."""
NEEDS = {
    "12 Alignment scores": ("02 ZipLoRA merge",),
    "03 Apply a saved merge": ("02 ZipLoRA merge",),
    "09 Compare merges": ("06 Train a subject LoRA", "07 Train a style LoRA"),
    "15 Use a slider": ("13 Train a slider from words",),
    "18 Recombine two images": ("17 Split an image",),
    "19 Variations of a split image": ("17 Split an image",),
    "16 Stack sliders": ("13 Train a slider from words", "14 Train a slider from images"),
}
"""Workflows that name files which others save."""
WITHOUT_IMAGES = ("20 LoRA tools", "21 Extract a LoRA")
TRAININGS = (
    *("06 Train a subject LoRA", "07 Train a style LoRA", "05 Subject in style from images"),
    "17 Split an image",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComfyServer]:
    """A ComfyUI of this module's own: its first merge gets the number the workflows name."""
    with ComfyServer(fresh_base(tmp_path_factory.mktemp("workflows"))) as running:
        yield running


@pytest.fixture(scope="module")
def run(server: ComfyServer) -> Run:
    """Run a workflow by its name, once, after those whose files it names."""

    @functools.cache
    def run_once(name: str) -> Result:
        for earlier in NEEDS.get(name, ()):
            run_once(earlier)
        if name in TRAININGS:
            server.free()  # two of them train the same subject
        return server.run(prompt_of(name, server, OVERRIDES))

    return run_once


@pytest.fixture(scope="module")
def merge_run(run: Run) -> Result:
    """Run the graph of 02 ZipLoRA merge.json."""
    return run("02 ZipLoRA merge")


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest, run: Run) -> str:
    """Each workflow in turn, on a server that has the files it names."""
    for earlier in NEEDS.get(request.param, ()):
        run(earlier)
    return request.param


def read(name: str) -> Json:
    return json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))


def prompt_of(name: str, server: ComfyServer, overrides: Json | None = None) -> Json:
    return to_prompt(with_small_encoders(read(name)), server.object_info(), overrides)


def nodes(prompt: Json, class_type: str) -> dict[str, Json]:
    return {key: n["inputs"] for key, n in prompt.items() if n["class_type"] == class_type}


def text_of(name: str, title: str, server: ComfyServer, run: Run) -> str:
    """The report of the one node of that title or type, after the workflow has run."""
    result = run(name)
    assert result.error is None
    prompt = prompt_of(name, server)
    (node_id,) = (key for key, n in prompt.items() if n["_meta"]["title"] == title)
    (report,) = result.outputs[node_id]["text"]
    return report


def saved_files(name: str, class_type: str, server: ComfyServer, run: Run) -> list[Path]:
    """List the files that the nodes of a class have saved, in the workflow's order."""
    result = run(name)
    return [saved_path(result, key) for key in nodes(prompt_of(name, server), class_type)]


def test_workflow_converted_and_run_shows_all_outputs(
    name: str, server: ComfyServer, run: Run
) -> None:
    prompt = prompt_of(name, server, OVERRIDES)
    result = run(name)
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
    (saved,) = nodes(prompt_of("03 Apply a saved merge", server), "LoadMergedLoRA").values()
    assert (server.output / "loras" / saved["merged_lora"]).is_file()
    assert saved["merged_lora"] in str(merge_run.outputs)


def test_merge_workflow_run_reports_retention_and_a_map_of_what_was_learned(
    merge_run: Result, server: ComfyServer
) -> None:
    (node_id,) = nodes(prompt_of("02 ZipLoRA merge", server), "ZipLoRAOptimize")
    (report,) = merge_run.outputs[node_id]["text"]
    assert "retention (error against" in report and "WARNING" not in report
    assert any(e["type"] == "ziplora.training" for e in merge_run.events)
    (drawn,) = merge_run.outputs[node_id]["ziplora_merge_map"]
    assert len(drawn["cells"]) == 88


@pytest.mark.parametrize("training", TRAININGS)
def test_training_workflow_saves_loras_that_the_stock_loader_draws_with(
    training: str, server: ComfyServer, run: Run
) -> None:
    files = saved_files(training, "SaveTrainedLoRA", server, run)
    assert files and all(file.parent == server.output / "loras" for file in files)
    before = server.log().count("lora key not loaded")  # by other workflows
    graph = Graph()
    drawn = [graph.render(graph.model, graph.clip, "base")]
    for file in files:
        lora = graph.stock_lora(graph.model, graph.clip, file.name)
        drawn.append(graph.render([lora, 0], [lora, 1], file.stem))
    result = succeeded(server, graph)
    assert server.log().count("lora key not loaded") == before
    base, *others = (saved_latent(server, result, node) for node in drawn)
    for latent in others:
        assert latent.isfinite().all() and float((latent - base).abs().max()) > 1e-3


def test_subject_workflow_reads_the_folder_and_reports_what_it_learned(
    server: ComfyServer, run: Run
) -> None:
    name = "06 Train a subject LoRA"
    assert text_of(name, "LoadTrainingImages", server, run).startswith("5 pictures of ")
    report = text_of(name, "TrainDreamBoothLoRA", server, run)
    assert "LoRA of 5 pictures" in report and "WARNING" not in report
    assert "88 UNet modules, rank 64, alpha 64" in report
    without, with_lora = report.split("without → with the LoRA: ")[1].split(" (")[0].split(" → ")
    assert float(with_lora) < float(without)
    assert any(e["type"] == "ziplora.training" for e in run(name).events)


def test_scratch_workflow_learns_a_merge_of_what_it_trained(server: ComfyServer, run: Run) -> None:
    name = "05 Subject in style from images"
    pair = text_of(name, "LoadLoRAPair", server, run)
    assert "content_lora_model" in pair and "style_lora_model" in pair
    report = text_of(name, "Learn the merge", server, run)
    assert "88 of 88 modules optimised" in report and "WARNING" not in report
    (saved,) = saved_files(name, "SaveMergedLoRA", server, run)
    assert saved.is_file()


def test_scratch_workflow_trains_and_merges_on_the_same_prompts(server: ComfyServer) -> None:
    prompt = prompt_of("05 Subject in style from images", server)
    trained = [inputs["prompt"] for inputs in nodes(prompt, "TrainDreamBoothLoRA").values()]
    (merge,) = nodes(prompt, "ZipLoRAOptimize").values()
    encoded = [merge["content_conditioning"][0], merge["style_conditioning"][0]]
    assert [prompt[node_id]["inputs"]["text"] for node_id in encoded] == trained


def test_training_workflow_settings_are_the_defaults_but_for_prompts(server: ComfyServer) -> None:
    info = server.object_info()["TrainDreamBoothLoRA"]["input"]
    specs = {**info["required"], **info["optional"]}
    for name in TRAININGS:
        for inputs in nodes(prompt_of(name, server), "TrainDreamBoothLoRA").values():
            widgets = {k: v for k, v in inputs.items() if not isinstance(v, list)}
            widgets.pop("prompt", None)
            assert widgets == {key: specs[key][1]["default"] for key in widgets}


def test_tools_workflow_makes_both_files(server: ComfyServer, run: Run) -> None:
    name = "20 LoRA tools"
    source = server.models / "loras" / "my_subject.safetensors"
    (small,) = saved_files(name, "SaveTrainedLoRA", server, run)
    assert small.stat().st_size < source.stat().st_size
    (exported,) = saved_files(name, "ExportLoRA", server, run)
    assert exported.is_file() and exported.parent == server.output / "ziplora" / "exports"
    assert "relative error" in text_of(name, "ResizeLoRA", server, run)


def test_extract_workflow_saves_the_difference(server: ComfyServer, run: Run) -> None:
    name = "21 Extract a LoRA"
    (extracted,) = saved_files(name, "SaveTrainedLoRA", server, run)
    assert extracted.is_file()
    assert "204 of 204 layers differ" in text_of(name, "ExtractLoRA", server, run)


@pytest.mark.parametrize("method", ["direct", "svd", "factor_average"])
def test_compare_workflow_merges_in_three_ways(method: str, server: ComfyServer, run: Run) -> None:
    report = text_of("09 Compare merges", f"Merge LoRAs: {method}", server, run)
    assert report.startswith(f"{method}: 1 × my_subject_00001_.safetensors (content)")
    assert "88 UNet modules, 88 of them in both" in report


def test_bake_workflow_unmuted_bakes_the_lora_into_a_checkpoint(
    server: ComfyServer, run: Run
) -> None:
    run("23 Bake a LoRA")
    assert not list(server.output.rglob("my_subject_baked*"))
    workflow = read("23 Bake a LoRA")
    (bake,) = (node for node in workflow["nodes"] if node["type"] == "CheckpointSave")
    assert bake["mode"] == MUTED
    bake["mode"] = ACTIVE
    prompt = to_prompt(workflow, server.object_info(), OVERRIDES)
    assert server.run(prompt, partial=[str(bake["id"])]).status == "success"
    graph = Graph()
    name = "my_subject_baked_00001_.safetensors"
    assert (server.output / "checkpoints" / name).is_file()
    model = graph.out("CheckpointLoaderSimple", ckpt_name=name)
    lora = graph.stock_lora(graph.model, graph.clip, "my_subject.safetensors", 0.8)
    baked = graph.render(model, [lora, 1], "baked")
    loaded = graph.render([lora, 0], [lora, 1], "loaded")
    result = succeeded(server, graph)
    assert_close(saved_latent(server, result, baked), saved_latent(server, result, loaded), 0.05)


def test_alignment_workflow_unmuted_measures_its_picture(server: ComfyServer, run: Run) -> None:
    """With small encoders where Load CLIP Vision has published ones of gigabytes."""
    run("02 ZipLoRA merge")
    workflow, kinds = read("12 Alignment scores"), iter(("clip_vision", "dinov2"))
    for node in workflow["nodes"]:
        node["mode"] = ACTIVE
        if node["type"] == "CLIPVisionLoader":
            node |= {"type": "SandboxVision", "widgets_values": [next(kinds), 32]}
    result = server.run(to_prompt(workflow, server.object_info(), OVERRIDES))
    assert (result.status, result.error) == ("success", None)
    (scores,) = (node for node in workflow["nodes"] if node["type"] == "AlignmentScores")
    (report,) = result.outputs[str(scores["id"])]["text"]
    for measured in ("style (CLIP-I): ", "subject (DINOv2): ", "text (CLIP-T): "):
        assert measured in report


def test_workflow_values_are_those_of_its_family(name: str, server: ComfyServer) -> None:
    prompt = prompt_of(name, server)
    for class_type, expected in values_of(name).items():
        for inputs in nodes(prompt, class_type).values():
            assert {key: inputs[key] for key in expected} == expected
    latent = next(iter(values_of(name)))
    assert nodes(prompt, latent) or name in WITHOUT_IMAGES


def values_of(name: str) -> Json:
    """The values that a workflow of its family has, first those of the empty latent."""
    if name not in FAMILY_VALUES:
        return SDXL_VALUES
    latent, side, sampler = FAMILY_VALUES[name]
    sides = {"width": side, "height": side}
    return {latent: {**sides, "batch_size": 1}, "KSampler": sampler, "ZipLoRAOptimize": sides}


def test_merge_workflow_settings_are_the_defaults(server: ComfyServer) -> None:
    (inputs,) = nodes(prompt_of("02 ZipLoRA merge", server), "ZipLoRAOptimize").values()
    groups = server.object_info()["ZipLoRAOptimize"]["input"]
    specs = {**groups.get("required", {}), **groups.get("optional", {})}
    widgets = {key: value for key, value in inputs.items() if not isinstance(value, list)}
    assert widgets == {key: specs[key][1]["default"] for key in widgets}


def test_workflow_file_is_what_the_frontend_writes(name: str) -> None:
    workflow = read(name)
    assert workflow["version"] == 0.4
    assert {"nodes", "links", "groups", "extra"} <= set(workflow)
    blueprint = json.loads((ROOT / "subgraphs" / "Subject in style.json").read_text("utf-8"))
    assert workflow.get("definitions") in (None, blueprint["definitions"])
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
