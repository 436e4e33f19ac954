"""Names of files and folders as people have them: of the other system, links, very long ones."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
from PIL import Image

from sandbox.server import ComfyServer, PromptRejected

from ..graph import SUBJECT, Graph, report, saved_path, succeeded

Pick = Callable[[Graph, str], str]


def plotted(graph: Graph, name: str) -> str:
    return graph.node("PlotWeights", lora=name, theme="dark")


def paired(graph: Graph, name: str) -> str:
    return graph.save(graph.direct(graph.pair(content=name, style=name)), "paths/pair")


def imported(graph: Graph, name: str) -> str:
    lora = graph.out("ImportLoRA", model=graph.model, lora=name)
    return graph.node("SaveTrainedLoRA", lora=lora, filename_prefix="paths/i", dtype="fp32")


def reloaded(graph: Graph, name: str) -> str:
    merged = graph.node("LoadMergedLoRA", merged_lora=name)
    return graph.save(merged, "paths/reloaded")


def separated(graph: Graph, name: str) -> str:
    files = {f"{concept}_lora": name for concept in ("content", "style")}
    merged = graph.node("ImportUnZipLoRA", model=graph.model, **files)
    return graph.save(merged, "paths/separated")


def slid(graph: Graph, name: str) -> str:
    window: dict[str, Any] = {"scale": 1.0, "start_percent": 0.0, "end_percent": 1.0}
    model = graph.out("ConceptSlider", model=graph.model, slider=name, **window)
    return graph.render(model, graph.clip, "paths_slider")


def pruned(graph: Graph, name: str) -> str:
    model = graph.out("PruneLoRA", model=graph.model, lora=name, prune=0.5, strength=1.0)
    return graph.render(model, graph.clip, "paths_pruned")


def swept(graph: Graph, name: str) -> str:
    grid = graph.out(
        "SliderSweep", model=graph.model, positive=graph.text("a"), negative=graph.text(""),
        latent=graph.out("EmptyLatentImage", width=64, height=64, batch_size=1), vae=graph.vae,
        slider=name, scales="1", start_percent=0.0, end_percent=1.0, seed=0, steps=1, cfg=1.0,
        sampler_name="euler", scheduler="normal", second_slider=name, second_scales="1",
    )  # fmt: skip
    return graph.node("SaveImage", images=grid, filename_prefix="paths_sweep")


PICKERS: dict[Pick, str] = {
    plotted: "subject", paired: "subject", imported: "subject", reloaded: "merge",
    separated: "unet", slid: "subject", pruned: "subject", swept: "subject",
}  # fmt: skip
"""Every node with a list of LoRA files, and the file that is picked."""


@pytest.fixture(scope="module")
def files(server: ComfyServer) -> Path:
    """Files in two folders, one of them a link: a LoRA, its UNet's part, and a merge."""
    folder = server.models / "loras" / "of them" / "inner"
    folder.mkdir(parents=True)
    graph = Graph()
    made = save(graph, "paths/made")
    shutil.copy(saved_path(succeeded(server, graph), made), folder / "merge.safetensors")
    shutil.copy(server.models / "loras" / SUBJECT, folder / "subject.safetensors")
    whole = safetensors.torch.load_file(folder / "subject.safetensors")
    unet = {key: tensor for key, tensor in whole.items() if key.startswith("lora_unet_")}
    safetensors.torch.save_file(unet, folder / "unet.safetensors")
    elsewhere = server.base / "another disk"
    shutil.copytree(folder, elsewhere)
    (server.models / "loras" / "linked").symlink_to(elsewhere)
    return folder


@pytest.mark.parametrize(("pick", "leaf"), PICKERS.items())
def test_windows_path_finds_the_file_in_every_picker(
    pick: Pick, leaf: str, server: ComfyServer, files: Path
) -> None:
    for name in (f"of them\\inner\\{leaf}.safetensors", f"linked\\{leaf}.safetensors"):
        graph = Graph()
        pick(graph, name)
        succeeded(server, graph)


def test_a_windows_path_reads_the_same_file_as_this_systems_own(
    server: ComfyServer, files: Path
) -> None:
    graph = Graph()
    nodes = [plotted(graph, f"of them{s}inner{s}subject.safetensors") for s in "/\\"]
    result = succeeded(server, graph)
    assert report(result, nodes[0]) == report(result, nodes[1])
    where = "/ziplora/slider?name=of%20them{}inner{}subject.safetensors"
    assert "how far" in server.get(where.format("%5C", "%5C"))["why"]


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("no such/file.safetensors", "Press R"),
        ("D:\\loras\\subject.safetensors", "Pick linked/subject.safetensors, which has the same"),
        ("x" * 300, "Press R"),
        ("../loras/of them/inner/subject.safetensors", "Pick linked/subject.safetensors"),
    ],
)
def test_a_file_that_is_not_there_is_refused_before_the_run(
    name: str, advice: str, server: ComfyServer, files: Path
) -> None:
    graph = Graph()
    plotted(graph, name)
    message = refused(server, graph)
    assert "lora: found" in message and name in message and advice in message


def refused(server: ComfyServer, graph: Graph) -> str:
    with pytest.raises(PromptRejected) as rejected:
        server.queue(graph.prompt)
    assert rejected.value.status == 400
    errors: list[dict[str, Any]] = [
        error for node in rejected.value.body["node_errors"].values() for error in node["errors"]
    ]
    return " ".join(error["details"] for error in errors)


def loaded(graph: Graph, folder: str) -> str:
    node = graph.node("LoadTrainingImages", folder=folder)
    graph.node("PreviewImage", images=[node, 0])
    return node


def test_folders_of_pictures_are_found_by_paths_of_the_other_system_and_behind_links(
    server: ComfyServer,
) -> None:
    inner = server.base / "input" / "photos" / "of my dog"
    inner.mkdir(parents=True)
    Image.new("RGB", (64, 48), "red").save(inner / "one.png")
    elsewhere = server.base / "a second disk" / "cats"
    elsewhere.mkdir(parents=True)
    Image.new("RGB", (32, 48), "blue").save(elsewhere / "two.png")
    (server.base / "input" / "linked").symlink_to(elsewhere.parent)
    (elsewhere / "up").symlink_to(server.base / "input")  # a circle
    options = server.object_info()["LoadTrainingImages"]["input"]["required"]["folder"]
    listed = options[1]["options"] if isinstance(options[0], str) else options[0]
    assert {"photos", "photos/of my dog", "linked", "linked/cats"} <= {*listed}
    assert len(listed) == len({*listed}) < 200
    sizes = {
        "photos\\of my dog": "64 × 48", "photos/of my dog": "64 × 48", "linked\\cats": "32 × 48"
    }  # fmt: skip
    graph = Graph()
    nodes = {name: loaded(graph, name) for name in sizes}
    result = succeeded(server, graph)
    for name, size in sizes.items():
        assert report(result, nodes[name]).startswith(f"1 picture of {size}")
    wrong = Graph()
    loaded(wrong, "elsewhere\\cats")
    assert "Pick linked/cats, which has the same name" in refused(server, wrong)


def save(graph: Graph, prefix: str) -> str:
    return graph.save(graph.direct(graph.pair()), prefix)


@pytest.mark.parametrize(
    ("prefix", "found", "expected"),
    [
        ("x" * 240, "a name of 240 letters, 240 bytes and 19 more", "at most 236 bytes"),
        ("merges/" + "狗" * 90, "a name of 90 letters, 270 bytes and 19", "at most 236 bytes"),
        ("y" * 256 + "/merge", "a name of 256 letters, 256 bytes,", "at most 255 bytes"),
    ],
)
@pytest.mark.parametrize("node", ["SaveMergedLoRA", "SaveTrainedLoRA", "ExportLoRA"])
def test_a_name_that_is_too_long_is_refused_by_its_part(
    node: str, prefix: str, found: str, expected: str, server: ComfyServer
) -> None:
    graph = Graph()
    merged = graph.direct(graph.pair())
    if node == "SaveMergedLoRA":
        graph.save(merged, prefix)
    else:
        others = {"format": "kohya"} if node == "ExportLoRA" else {}
        graph.node(node, lora=[merged, 1], filename_prefix=prefix, dtype="fp16", **others)
    message = refused(server, graph)
    part = max(prefix.split("/"), key=len)
    assert f"its part {part[:12]}…{part[-12:]}: found {found}" in message
    assert f"expected {expected}" in message and "Shorten this part by" in message


def test_the_longest_name_is_saved_and_found_again(server: ComfyServer) -> None:
    graph = Graph()
    node = save(graph, "z" * 236)
    path = saved_path(succeeded(server, graph), node)
    assert len(os.fsencode(path.name)) == 255
    server.object_info()
    again = Graph()
    plotted(again, path.name)
    succeeded(server, again)


def test_a_prefix_of_windows_saves_into_its_folder(server: ComfyServer) -> None:
    graph = Graph()
    node = save(graph, "of windows\\merge")
    path = saved_path(succeeded(server, graph), node)
    assert path.parent == server.output / "loras" / "of windows" and path.name[:6] == "merge_"


def test_a_folder_that_leads_out_of_the_output_folder_is_named(server: ComfyServer) -> None:
    (server.output / "loras").mkdir(exist_ok=True)
    (server.output / "loras" / "outside").symlink_to(server.base / "user")
    graph = Graph()
    save(graph, "outside/merge")
    message = refused(server, graph)
    assert "found outside, a link to" in message and "inside output/loras" in message
