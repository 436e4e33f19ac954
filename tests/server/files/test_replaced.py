"""Files replaced by others of the same size and time are read again, through the live server."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from PIL import Image

from sandbox.server import ComfyServer, Result

from ..graph import STYLE, SUBJECT, Graph, report, saved_latent, succeeded

TO_Q = "mid_block.attentions.0.transformer_blocks.0.attn2.to_q"
"""A layer of the tiny SDXL, whose one block a group diffusers' names fit."""
Put = Callable[[str, Any], str]
Run = tuple[Graph, str, Callable[[Result], object]]
"""A graph, the node that reads the file, and what a run of it gives that depends on the file."""


def replace_quietly(path: Path, data: bytes, in_place: bool = True) -> None:
    """Replace a file as programs that restore or synchronise do: same size, same time."""
    old = path.stat()
    assert len(data) == old.st_size and data != path.read_bytes()
    target = path if in_place else path.with_name("on its way")
    target.write_bytes(data)
    os.utime(target, ns=(old.st_atime_ns, old.st_mtime_ns))
    if not in_place:
        os.replace(target, path)
    new = path.stat()
    assert (new.st_size, new.st_mtime_ns) == (old.st_size, old.st_mtime_ns)


def assert_new_content_counts(server: ComfyServer, run: Run, replace: Callable[[], None]) -> None:
    """The same graph is served from the cache until the file is replaced, and then gives more."""
    graph, reader, look = run
    before = look(succeeded(server, graph))
    assert reader not in succeeded(server, graph).executed
    replace()
    result = succeeded(server, graph)
    assert reader in result.executed
    assert look(result) != before


def negated(path: Path) -> bytes:
    """The same LoRA with its `up` factors negated: another content of the same size."""
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = safetensors.torch.load_file(path)
    new = {key: -t if key.endswith("lora_up.weight") else t for key, t in tensors.items()}
    return safetensors.torch.save(new, metadata)


def copied(server: ComfyServer, put: Put, name: str, source: str = SUBJECT) -> Path:
    """A LoRA of a test, as the safetensors library writes it."""
    put(name, safetensors.torch.load_file(server.models / "loras" / source))
    return server.models / "loras" / name


def latent(server: ComfyServer, node: str) -> Callable[[Result], object]:
    return lambda result: saved_latent(server, result, node).numpy().tobytes()


def of_a_pair(server: ComfyServer, name: str) -> Run:
    graph = Graph()
    pair = graph.pair(content=name)
    applied = graph.apply(graph.direct(pair))
    return graph, pair, latent(server, graph.render([applied, 0], [applied, 1], "replaced"))


def of_a_slider(server: ComfyServer, name: str) -> Run:
    graph = Graph()
    window = {"start_percent": 0.0, "end_percent": 1.0}
    node = graph.node("ConceptSlider", model=graph.model, slider=name, scale=1.0, **window)
    return graph, node, latent(server, graph.render([node, 0], graph.clip, "replaced"))


def of_a_pruned_lora(server: ComfyServer, name: str) -> Run:
    graph = Graph()
    node = graph.node("PruneLoRA", model=graph.model, lora=name, prune=0.5, strength=1.0)
    return graph, node, latent(server, graph.render([node, 0], graph.clip, "replaced"))


def of_an_imported_lora(server: ComfyServer, name: str) -> Run:
    graph = Graph()
    node = graph.node("ImportLoRA", model=graph.model, lora=name)
    pair = graph.pair("None", STYLE, content_lora_model=[node, 0])
    applied = graph.apply(graph.direct(pair))
    return graph, node, latent(server, graph.render([applied, 0], [applied, 1], "replaced"))


@pytest.mark.parametrize("in_place", [True, False], ids=["written over", "put in its place"])
@pytest.mark.parametrize("read", [of_a_pair, of_a_slider, of_a_pruned_lora, of_an_imported_lora])
def test_replaced_lora_of_the_same_size_and_time_is_read_again(
    read: Callable[[ComfyServer, str], Run], in_place: bool, server: ComfyServer, put: Put
) -> None:
    path = copied(server, put, "replaced.safetensors")
    run = read(server, path.name)
    assert_new_content_counts(
        server, run, lambda: replace_quietly(path, negated(path), in_place=in_place)
    )


def test_replaced_merge_of_the_same_size_and_time_is_read_again(
    server: ComfyServer, put: Put
) -> None:
    graph = Graph()
    saved = graph.save(graph.direct(graph.pair(SUBJECT, STYLE)), "replaced/merge")
    name = succeeded(server, graph).outputs[saved]["text"][0].splitlines()[0].split("loras/")[1]
    path = server.output / "loras" / name
    graph = Graph()
    node = graph.node("LoadMergedLoRA", merged_lora=name)
    applied = graph.apply(node)
    run = graph, node, latent(server, graph.render([applied, 0], [applied, 1], "replaced"))
    path.write_bytes(negated(path))  # once, for the layout that the safetensors library writes
    assert_new_content_counts(server, run, lambda: replace_quietly(path, negated(path)))


def test_changed_settings_of_peft_beside_a_lora_are_read_again(server: ComfyServer) -> None:
    folder = server.models / "loras" / "peft_replaced"
    folder.mkdir()
    try:
        key = (
            "base_model.model.mid_block.attentions.0.transformer_blocks.0.attn2.to_q.lora_{}.weight"
        )
        tensors = {key.format("A"): torch.ones(4, 128), key.format("B"): torch.ones(128, 4)}
        safetensors.torch.save_file(tensors, folder / "adapter_model.safetensors")
        settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 4, "target_modules": ["to_q"]}
        beside = folder / "adapter_config.json"
        beside.write_text(json.dumps(settings))
        server.object_info()
        run = of_an_imported_lora(server, "peft_replaced/adapter_model.safetensors")
        assert_new_content_counts(
            server, run,
            lambda: replace_quietly(beside, json.dumps({**settings, "lora_alpha": 8}).encode()),
        )  # fmt: skip
    finally:
        shutil.rmtree(folder)
        server.object_info()


@pytest.mark.parametrize("what", ["dog.bmp", "dog.txt", "metadata.csv"])
def test_replaced_picture_or_caption_of_the_same_size_and_time_is_read_again(
    what: str, server: ComfyServer
) -> None:
    place = server.base / "input" / f"replaced_{what.replace('.', '_')}"
    place.mkdir()
    colour = torch.full((64, 64, 3), 200, dtype=torch.uint8)
    Image.fromarray(colour.numpy()).save(place / "dog.bmp")
    if what == "metadata.csv":
        (place / what).write_text("file_name,text\ndog.bmp,a red dog\n")
    else:
        (place / "dog.txt").write_text("a red dog")
    graph = Graph()
    read = graph.node("LoadTrainingImages", folder=place.name)
    shown = graph.node("PreviewAny", source=[read, 1])
    picture = graph.node("SaveImage", images=[read, 0], filename_prefix=place.name)

    def look(result: Result) -> object:
        image = result.outputs[picture]["images"][0]
        pixels = Image.open(server.output / image["subfolder"] / image["filename"]).tobytes()
        return pixels, report(result, shown)

    def replace() -> None:
        path = place / what
        data = path.read_bytes()
        other = data.replace(b"\xc8" * 9, b"\x10" * 9).replace(b"a red", b"a big")
        replace_quietly(path, other)

    assert_new_content_counts(server, (graph, read, look), replace)


def test_replaced_merger_of_unziplora_is_read_again(server: ComfyServer) -> None:
    place = server.models / "loras" / "official_replaced"
    place.mkdir()
    try:
        for concept in ("content", "style"):
            lora = f"unet.unet.{TO_Q}.lora"
            shapes = {f"{lora}.up.weight": (128, 4), f"{lora}.down.weight": (4, 128)}
            tensors = {key: torch.ones(shape) for key, shape in shapes.items()}
            safetensors.torch.save_file(tensors, place / f"{concept}.safetensors")
            merger = {f"unet.{TO_Q}.lora.merge_{concept}": torch.ones(128)}
            torch.save(merger, place / f"{concept}.pth")
        server.object_info()
        kinds = {"lora": "safetensors", "merger": "pth"}
        files = {
            f"{concept}_{kind}": f"official_replaced/{concept}.{ending}"
            for concept in ("content", "style")
            for kind, ending in kinds.items()
        }  # fmt: skip
        graph = Graph()
        node = graph.node("ImportUnZipLoRA", model=graph.model, **files)
        saved = graph.save(node, "replaced/unzip")

        def look(result: Result) -> object:
            return report(result, saved).splitlines()[-1]  # the file's SHA-256

        def replace() -> None:
            other = place / "other" / "content.pth"  # the archive contains its file's name
            other.parent.mkdir()
            torch.save({f"unet.{TO_Q}.lora.merge_content": torch.full((128,), 0.5)}, other)
            replace_quietly(place / "content.pth", other.read_bytes())

        assert_new_content_counts(server, (graph, node, look), replace)
    finally:
        shutil.rmtree(place)
        server.object_info()
