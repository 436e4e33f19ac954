"""UnZipLoRA through the live server: taken apart, saved, loaded, drawn with, recombined."""

from __future__ import annotations

import pytest
import safetensors
import safetensors.torch
import torch

from sandbox.server import ComfyServer, Result

from ..graph import STYLE, Graph, Link, assert_close, report, saved_latent, saved_path, succeeded
from ..test_bad_input import message_of
from .unziplora_graph import JOINT, STEPS, apply, draw, picture, save, unzip

CLOSE = 2e-3
"""A branch beside a layer and a patched weight round differently."""


@pytest.fixture(scope="module")
def trained(server: ComfyServer) -> tuple[Result, dict[str, str]]:
    """Two pictures taken apart and saved; the nodes of what was drawn and written."""
    graph = Graph()
    node = unzip(graph)
    other = unzip(graph, picture(graph, colour=0x2288CC), seed=1)
    graph.node("LossGraphNode", loss=[node, 3], filename_prefix="loss")
    nodes = {
        "train": node,
        "content": save(graph, [node, 1], "content"),
        "style": save(graph, [node, 2], "style"),
        "merged": graph.save(node, "unzip/merged"),
        "other": graph.save(other, "unzip/other"),
    }
    own = apply(graph, [node, 0])
    swapped = graph.node("RecombineUnZipLoRA", content_from=[node, 0], style_from=[other, 0])
    itself = graph.out("RecombineUnZipLoRA", content_from=[node, 0], style_from=[node, 0])
    nodes |= {
        "applied": own,
        "recombined": swapped,
        "swap file": graph.save(swapped, "unzip/swapped"),
        "base": draw(graph, graph.model, "base"),
        "own": draw(graph, [own, 0], "own"),
        "swap": draw(graph, [apply(graph, [swapped, 0]), 0], "swap"),
        "itself": draw(graph, [apply(graph, itself), 0], "itself"),
    }
    return succeeded(server, graph), nodes


def file_of(trained: tuple[Result, dict[str, str]], name: str) -> str:
    result, nodes = trained
    return f"unzip/{saved_path(result, nodes[name]).name}"


def test_training_reports_previews_and_says_what_is_applied(
    trained: tuple[Result, dict[str, str]],
) -> None:
    result, nodes = trained
    said = report(result, nodes["train"])
    assert "UnZipLoRA of 1 picture" in said and f"{STEPS} of {STEPS} steps" in said
    assert any(e["type"] == "ziplora.training" for e in result.events)
    assert "content at 1: 88 modules, 22 of them read its own prompt" in report(
        result, nodes["applied"]
    )
    assert f"content of {JOINT}" in report(result, nodes["recombined"])


def test_content_and_style_alone_are_whole_loras_of_stock_loaders(
    server: ComfyServer, trained: tuple[Result, dict[str, str]]
) -> None:
    result, nodes = trained
    before = server.log().count("lora key not loaded")
    graph = Graph()
    names = {part: file_of(trained, part) for part in ("content", "style", "merged")}
    drawn = {}
    for part, name in names.items():
        lora = graph.stock_lora(graph.model, graph.clip, name)
        drawn[part] = draw(graph, [lora, 0], part)
    second = succeeded(server, graph)
    assert server.log().count("lora key not loaded") == before
    base = saved_latent(server, result, nodes["base"])
    for part, node in drawn.items():
        latent = saved_latent(server, second, node)
        assert latent.isfinite().all() and float((latent - base).abs().max()) > 1e-3, part


def test_loaded_merge_draws_what_the_trained_one_draws(
    server: ComfyServer, trained: tuple[Result, dict[str, str]]
) -> None:
    result, nodes = trained
    graph = Graph()
    loaded = {
        name: graph.node("LoadMergedLoRA", merged_lora=file_of(trained, name))
        for name in ("merged", "other", "swap file")
    }
    swapped = graph.out(
        "RecombineUnZipLoRA", content_from=[loaded["merged"], 0], style_from=[loaded["other"], 0]
    )
    own, swap, saved_swap = (
        draw(graph, [apply(graph, merged), 0], name)
        for name, merged in (
            ("own", [loaded["merged"], 0]), ("swap", swapped), ("file", [loaded["swap file"], 0]),
        )
    )  # fmt: skip
    second = succeeded(server, graph)
    latents = {name: saved_latent(server, result, nodes[name]) for name in ("own", "swap")}
    assert_close(saved_latent(server, second, own), latents["own"], CLOSE)
    for node in (swap, saved_swap):
        assert_close(saved_latent(server, second, node), latents["swap"], CLOSE)
    assert torch.equal(saved_latent(server, result, nodes["itself"]), latents["own"])
    assert float((latents["swap"] - latents["own"]).abs().max()) > 1e-3


def test_plain_addition_equals_equal_prompts_without_guidance_and_the_saved_file(
    server: ComfyServer, trained: tuple[Result, dict[str, str]]
) -> None:
    graph = Graph()
    name = file_of(trained, "merged")
    merged = graph.node("LoadMergedLoRA", merged_lora=name)
    same = graph.text(JOINT)
    ours = apply(graph, [merged, 0], content_conditioning=same, style_conditioning=same)
    added = graph.apply(merged)
    stock = graph.stock_lora(graph.model, graph.clip, name)
    nodes = [draw(graph, [node, 0], f"d{n}", 1.0) for n, node in enumerate((ours, added, stock))]
    result = succeeded(server, graph)
    assert "both read the one prompt here" in report(result, added)
    first, *others = (saved_latent(server, result, node) for node in nodes)
    for other in others:
        assert_close(other, first, CLOSE)


def test_unequal_strengths_of_plain_addition_are_those_of_the_files_halves(
    server: ComfyServer, trained: tuple[Result, dict[str, str]]
) -> None:
    name = file_of(trained, "merged")
    tensors = safetensors.torch.load_file(server.output / "loras" / name)
    for key, up in tensors.items():
        if key.endswith("lora_up.weight"):  # (out, 4 + 4): content first
            tensors[key] = up * torch.tensor([0.25] * 4 + [0.75] * 4)
    safetensors.torch.save_file(tensors, server.models / "loras" / "unequal.safetensors")
    server.object_info()  # as a person's refresh does
    graph = Graph()
    merged = graph.node("LoadMergedLoRA", merged_lora=name)
    ours = graph.apply(merged, 0.25, 0.75)
    stock = graph.stock_lora(graph.model, graph.clip, "unequal.safetensors")
    nodes = [draw(graph, [node, 0], f"d{n}") for n, node in enumerate((ours, stock))]
    result = succeeded(server, graph)
    assert_close(*(saved_latent(server, result, node) for node in nodes), CLOSE)


def test_goes_together_with_a_slider_and_a_stock_lora(
    server: ComfyServer, trained: tuple[Result, dict[str, str]]
) -> None:
    graph = Graph()
    merged = graph.out("LoadMergedLoRA", merged_lora=file_of(trained, "merged"))

    def slid(model: Link) -> Link:
        return graph.out(
            "ConceptSlider", model=model, slider=STYLE, scale=0.5, start_percent=0.0,
            end_percent=1.0,
        )  # fmt: skip

    def stock(model: Link) -> Link:
        return graph.out("LoraLoaderModelOnly", model=model, lora_name=STYLE, strength_model=0.5)

    orders = [
        slid([apply(graph, merged), 0]),
        [apply(graph, merged, slid(graph.model)), 0],
        stock([apply(graph, merged), 0]),
    ]
    nodes = [draw(graph, model, f"d{n}") for n, model in enumerate(orders)]
    result = succeeded(server, graph)
    first, *others = (saved_latent(server, result, node) for node in nodes)
    for other in others:
        assert_close(other, first, CLOSE)


def test_strengths_scale_each_half_and_zero_is_the_base(
    server: ComfyServer, trained: tuple[Result, dict[str, str]]
) -> None:
    result, nodes = trained
    graph = Graph()
    merged = graph.out("LoadMergedLoRA", merged_lora=file_of(trained, "merged"))
    strengths = [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (0.5, 1.0)]
    drawn = [
        draw(graph, [apply(graph, merged, content_strength=c, style_strength=s), 0], f"d{n}")
        for n, (c, s) in enumerate(strengths)
    ]
    second = succeeded(server, graph)
    none, *others = (saved_latent(server, second, node) for node in drawn)
    assert torch.equal(none, saved_latent(server, result, nodes["base"]))
    different = [none, *others, saved_latent(server, result, nodes["own"])]
    for i, one in enumerate(different):
        assert all(float((one - two).abs().max()) > 1e-3 for two in different[i + 1 :])


def test_merge_of_another_architecture_is_refused_with_the_counts(
    server: ComfyServer, trained: tuple[Result, dict[str, str]]
) -> None:
    result, nodes = trained
    with safetensors.safe_open(saved_path(result, nodes["merged"]), "pt") as file:
        tensors = {
            key.replace("input_blocks_4_1", "input_blocks_1_1"): file.get_tensor(key)
            for key in file.keys()  # noqa: SIM118 (it is no dictionary)
        }
        path = server.models / "loras" / "another_architecture.safetensors"
        safetensors.torch.save_file(tensors, path, file.metadata())
    server.object_info()  # as a person's refresh does
    graph = Graph()
    merged = graph.out("LoadMergedLoRA", merged_lora=path.name)
    draw(graph, [apply(graph, merged), 0], "never")
    said = message_of(server, graph)
    assert "content of the merge, 8 of 88 modules" in said and "no such weight in this" in said


def test_training_on_a_model_it_is_applied_to_is_refused_by_name(
    server: ComfyServer, trained: tuple[Result, dict[str, str]]
) -> None:
    graph = Graph()
    merged = graph.out("LoadMergedLoRA", merged_lora=file_of(trained, "merged"))
    applied = apply(graph, merged)
    node = unzip(graph)
    graph.prompt[node]["inputs"]["model"] = [applied, 0]
    graph.save(node, "unzip/never")
    assert "ziplora_unzip" in message_of(server, graph)
