"""A full disk, through a live server: what was not written is said, and nothing else suffers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

from sandbox.server import ComfyServer, Result, fresh_base
from sandbox.small_disk import SmallDisk, can_mount, small_disk

from ..dreambooth import test_train
from ..graph import Graph, report, saved_path, succeeded
from ..sliders.test_sliders import text_slider
from ..unziplora import unziplora_graph as unzip_graph

pytestmark = pytest.mark.skipif(not can_mount(), reason="mounting a disk takes root")

STEPS = 20
NAME, PART = 3 * 4096, 60_000
"""Bytes in which a file's name or its beginning fits."""
FULL = "No space left on device"
Disks = tuple[ComfyServer, SmallDisk, SmallDisk]
Start = Callable[[Graph], tuple[str, int]]


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disks]:
    """A server whose output folder and temporary folder are on small disks of their own."""
    base = fresh_base(tmp_path_factory.mktemp("full"))
    with (
        small_disk(base / "output", 48) as output,
        ComfyServer(base) as running,
        small_disk(base / "temp", 4) as temporary,
    ):
        yield running, output, temporary


@pytest.fixture
def full(
    disks: Disks,
) -> Iterator[Disks]:
    yield disks
    for disk in disks[1:]:
        disk.make_room()


def every_step(graph: Graph) -> Any:
    """Options with a checkpoint after every step."""
    options = {**test_train.OPTIONS, "checkpoint_every": 1, "sample_every": 0, "held_out_draws": 0}
    return graph.out("TrainingOptions", **options)


def merge(graph: Graph) -> tuple[str, int]:
    options = every_step(graph)
    return graph.optimise(graph.pair(), steps=STEPS, seed=901, options=options), 1


def slider(graph: Graph) -> tuple[str, int]:
    return text_slider(graph, steps=STEPS, seed=902, options=every_step(graph)), 1


def dreambooth(graph: Graph) -> tuple[str, int]:
    options = every_step(graph)
    return (
        test_train.train(graph, test_train.plain(graph), steps=STEPS, seed=903, options=options),
        1,
    )


def unzip(graph: Graph) -> tuple[str, int]:
    return unzip_graph.unzip(graph, steps=STEPS, seed=904, options=every_step(graph)), 2


def temporary_files(disk: SmallDisk) -> list[str]:
    return [name for name in disk.names() if name.endswith(".tmp")]


def watched(
    server: ComfyServer, graph: Graph, node: str, act: Callable[[dict[str, Any]], None]
) -> tuple[Result, list[dict[str, Any]]]:
    """Run a training; `act` gets every message of its panel. Returns them all."""
    told: list[dict[str, Any]] = []

    def watch(event: Any) -> None:
        if event["type"] == "ziplora.training":
            told.append(event["data"])
            act(event["data"])

    return succeeded(server, graph, on_event=watch), told


@pytest.mark.parametrize(
    "start",
    [dreambooth, *(pytest.param(s, marks=pytest.mark.thorough) for s in (merge, slider, unzip))],
)
def test_save_now_on_a_full_disk_says_so_and_succeeds_once_there_is_room(
    start: Start, full: Disks
) -> None:
    server, disk, _ = full
    graph = Graph()
    node, files = start(graph)
    graph.node("PreviewAny", source=[node, 0])
    did: list[str] = []

    def act(said: dict[str, Any]) -> None:
        if not did and said["step"] >= 2:
            disk.fill()
            did.append("filled")
            assert server.post("/ziplora/save", {}) == {"saving": [node]}
        elif did == ["filled"] and said["status"].startswith("WARNING: not saved."):
            assert FULL in said["status"] and not said["saved"]
            assert not temporary_files(disk)
            disk.make_room()
            did.append("made room")
            assert server.post("/ziplora/save", {}) == {"saving": [node]}

    result, told = watched(server, graph, node, act)
    assert did == ["filled", "made room"]
    run = server.get(f"/ziplora/training/{node}")
    assert (run["state"], run["step"], run["status"]) == ("finished", STEPS, "")
    assert len(run["saved"]) == files
    for name in run["saved"]:
        assert safetensors.torch.load_file(server.output / "loras" / name)
    said = report(result, node)
    assert "WARNING: not saved. Step " in said and FULL in said
    assert not temporary_files(disk)
    assert told[-1]["status"] == ""


@pytest.mark.thorough
def test_second_lora_that_does_not_fit_is_told_apart_from_the_first(
    full: Disks,
) -> None:
    server, disk, _ = full
    graph = Graph()
    node = unzip_graph.unzip(graph, steps=STEPS, seed=905)
    graph.node("PreviewAny", source=[node, 0])
    did: list[str] = []

    def act(said: dict[str, Any]) -> None:
        if not did and said["step"] >= 2:
            did.append("first")
            server.post("/ziplora/save", {})
        elif did == ["first"] and said["saved"]:
            size = (server.output / "loras" / said["saved"][0]).stat().st_size
            disk.fill(leave=size + size // 2)
            did.append("second")
            server.post("/ziplora/save", {})

    result, told = watched(server, graph, node, act)
    assert did == ["first", "second"]
    last = told[-1]
    assert last["status"].startswith("WARNING: not saved. Step ") and FULL in last["status"]
    assert "the style LoRA" in last["status"]
    (written,) = last["saved"]
    assert "content" in written and safetensors.torch.load_file(server.output / "loras" / written)
    assert f"Written was {written}." in report(result, node)
    assert not temporary_files(disk)


@pytest.mark.thorough
def test_save_asked_for_with_a_stop_is_not_forgotten(
    full: Disks,
) -> None:
    server, *_ = full
    graph = Graph()
    node = graph.optimise(graph.pair(), steps=STEPS, seed=909)
    graph.node("PreviewAny", source=[node, 0])
    asked: list[int] = []

    def act(said: dict[str, Any]) -> None:
        if not asked and said["step"] >= 2:
            asked.append(said["step"])
            server.post("/ziplora/save", {})
            server.post("/ziplora/stop", {})

    watched(server, graph, node, act)
    run = server.get(f"/ziplora/training/{node}")
    assert run["state"] == "stopped"
    (name,) = run["saved"]
    assert (server.output / "loras" / name).exists()


def test_checkpoints_that_do_not_fit_are_named_and_the_training_ends_as_without(
    full: Disks,
) -> None:
    server, disk, _ = full
    hashes = []
    for is_full in (True, False):
        disk.fill() if is_full else disk.make_room()
        graph = Graph()
        options = every_step(graph)
        node = graph.optimise(graph.pair(), steps=5, seed=906, options=options)
        shown = graph.node("PreviewAny", source=[node, 2])
        result = succeeded(server, graph)
        assert ("no checkpoint at step" in report(result, node)) == is_full
        assert not temporary_files(disk)
        hashes.append(report(result, shown))
        server.free()
    assert hashes[0] == hashes[1]


@pytest.mark.thorough
def test_class_pictures_that_do_not_fit_are_named(
    full: Disks,
) -> None:
    server, disk, _ = full
    disk.fill()
    graph = Graph()
    node = test_train.train(
        graph, test_train.plain(graph), steps=2, seed=907, class_prompt="a photo of a dog",
        class_count=2,
    )  # fmt: skip
    graph.node("PreviewAny", source=[node, 0])
    assert f"WARNING: class pictures could not be kept ({FULL})" in report(
        succeeded(server, graph), node
    )
    assert not temporary_files(disk)


def saved_merge(graph: Graph, name: str) -> str:
    return graph.save(graph.direct(graph.pair()), f"full_{name}/merge")


def saved_lora(graph: Graph, name: str) -> str:
    merged = graph.direct(graph.pair())
    return graph.node(
        "SaveTrainedLoRA", lora=[merged, 1], filename_prefix=f"full_{name}/lora", dtype="fp16"
    )


def exported(format: str) -> Callable[[Graph, str], str]:
    def export(graph: Graph, name: str) -> str:
        merged = graph.direct(graph.pair())
        return graph.node(
            "ExportLoRA", lora=[merged, 1], filename_prefix=f"full_{name}/{format}",
            format=format, dtype="fp16",
        )  # fmt: skip

    return export


SAVES = {
    "merge": saved_merge,
    "lora": saved_lora,
    **{f: exported(f) for f in ("kohya", "comfy", "peft", "diffusers", "sliders", "ziplora")},
}


@pytest.mark.parametrize(
    ("save", "leave"), [*((save, PART) for save in SAVES), ("lora", 0), ("lora", NAME)]
)
def test_save_on_a_full_disk_says_so_and_the_same_save_succeeds_once_there_is_room(
    save: str, leave: int, full: Disks
) -> None:
    server, disk, _ = full
    graph = Graph()
    node = SAVES[save](graph, f"{save}{leave}")
    before = disk.names()
    disk.fill(leave)
    result = server.run(graph.prompt)
    assert result.status == "error" and result.error is not None
    assert result.error["node_id"] == node
    assert result.error["exception_type"].endswith("ZipLoRAError"), result.error
    assert FULL in result.error["exception_message"]
    assert disk.names() == before
    disk.make_room()
    again = succeeded(server, graph)
    assert again.executed == [node]  # everything before it is cached
    path = saved_path(again, node)
    assert path.exists() and f"SHA-256 {_sha256(path)}" in report(again, node)


def _sha256(path: Path) -> str:
    import hashlib

    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.thorough
def test_plots_on_a_full_disk_say_so_and_give_their_images_all_the_same(
    full: Disks,
) -> None:
    server, output, temporary = full
    temporary.fill()
    graph = Graph()
    merged = graph.optimise(graph.pair(), steps=3, seed=908)
    plots = {
        graph.node("PlotLoss", loss=[merged, 2], theme="dark"): 0,
        graph.node("PlotWeights", lora="my_style.safetensors", theme="dark"): 0,
        graph.node("PlotMerge", merged=[merged, 0], theme="dark"): 1,
    }
    pictures = [
        graph.node("SaveImage", images=[plot, slot], filename_prefix=f"plot{plot}")
        for plot, slot in plots.items()
    ]
    result = succeeded(server, graph)
    for plot in plots:
        assert report(result, plot).startswith("WARNING: the image is not shown here: " + FULL)
        assert "images" not in result.outputs[plot]
    assert not temporary.names()
    for picture in pictures:
        image = result.outputs[picture]["images"][0]
        assert (output.path / image["subfolder"] / image["filename"]).stat().st_size > 1000
    temporary.make_room()
    server.free()
    result = succeeded(server, graph)
    assert all(result.outputs[plot]["images"] for plot in plots)
