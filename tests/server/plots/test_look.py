"""Figures, grids, pruning and scores through the live server."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sandbox.server import ComfyServer

from ..graph import SUBJECT, Graph, Link, report, saved_latent, succeeded
from ..test_bad_input import message_of

SIDE = 64
DARK, LIGHT = (0x1E, 0x1E, 0x22), (255, 255, 255)


def drawing(graph: Graph, clip: Link | None = None) -> dict[str, Any]:
    size = {"width": SIDE, "height": SIDE, "batch_size": 1}
    return {
        "positive": graph.text("a sks dog in watercolor style", clip),
        "negative": graph.text("blurry", clip),
        "seed": 3, "steps": 2, "cfg": 5.0, "sampler_name": "euler", "scheduler": "normal",
        "latent": graph.out("EmptyLatentImage", **size),
    }  # fmt: skip


def strength_grid(graph: Graph, merged: str, **inputs: Any) -> str:
    settings = {"content_strengths": "0, 1", "style_strengths": "0.5 1", **drawing(graph)}
    return graph.node(
        "StrengthGrid", model=graph.model, merged=[merged, 0], vae=graph.vae,
        **{**settings, **inputs},
    )  # fmt: skip


def pictures(server: ComfyServer, shown: dict[str, Any]) -> list[np.ndarray[Any, Any]]:
    """Read the pictures that a node shows, from wherever it put them."""
    return [
        np.asarray(Image.open(io.BytesIO(server.get(
            f"/view?filename={i['filename']}&subfolder={i['subfolder']}&type={i['type']}"
        ))).convert("RGB"))
        for i in shown["images"]
    ]  # fmt: skip


def test_figures_are_shown_on_their_nodes_in_both_themes(server: ComfyServer) -> None:
    graph = Graph()
    learned = graph.optimise(graph.pair())
    nodes = {
        (kind, theme): graph.node(kind, theme=theme, **inputs)
        for theme in ("dark", "light")
        for kind, inputs in (
            ("PlotLoss", {"loss": [learned, 2]}),
            ("PlotMerge", {"merged": [learned, 0]}),
            ("PlotWeights", {"lora": SUBJECT}),
        )
    }
    wired = graph.node("PlotWeights", lora="None", lora_model=[learned, 1])
    stock = graph.node("LossGraphNode", loss=[learned, 2], filename_prefix="loss")
    result = succeeded(server, graph)
    for (kind, theme), node in nodes.items():
        drawn = pictures(server, result.outputs[node])
        assert len(drawn) == (2 if kind == "PlotMerge" else 1)
        for picture in drawn:
            assert picture.shape == (640, 1024, 3)
            assert tuple(picture[0, 0]) == (DARK if theme == "dark" else LIGHT)
            assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 10
    assert len(pictures(server, result.outputs[stock])) == 1  # core's own node takes it, too
    said = report(result, nodes["PlotWeights", "dark"])
    assert "without the smallest 80% of every layer" in said and SUBJECT in said
    assert report(result, wired).startswith("lora_model: ")


@pytest.mark.parametrize("negative", [0.0, 1.0])
def test_strength_grid_draws_what_apply_merged_lora_draws(
    server: ComfyServer, negative: float
) -> None:
    graph = Graph()
    merged = graph.direct(graph.pair(clip=graph.clip))
    grid = strength_grid(graph, merged, theme="light", negative_strength=negative)
    applied = graph.apply(merged, content=1.0, style=0.5, negative_strength=negative)
    sampler = drawing(graph)
    sampled = graph.out(
        "KSampler", model=[applied, 0], latent_image=sampler.pop("latent"), denoise=1.0, **sampler
    )
    decoded = graph.out("VAEDecode", samples=sampled, vae=graph.vae)
    files = [
        graph.node("SaveImage", images=images, filename_prefix="grid")
        for images in ([grid, 0], [grid, 1], decoded)
    ]
    result = succeeded(server, graph)
    (whole,), single, (wanted,) = (pictures(server, result.outputs[node]) for node in files)
    assert len(single) == 4 and not np.array_equal(single[0], single[1])
    assert np.array_equal(single[1], wanted)  # row style 0.5, column content 1
    assert whole.shape == (2 * 22 + 2 * 68, 2 * 22 + 2 * 68, 3) and tuple(whole[0, 0]) == LIGHT
    cell = whole[44:108, 112:176].astype(int)
    assert np.abs(cell - wanted).max() <= 1  # the grid rounds to 8 bits, Save Image cuts off


def test_pruned_lora_draws_the_whole_one_at_zero_and_the_base_at_one(server: ComfyServer) -> None:
    graph = Graph()
    drawn = [
        graph.render(graph.model, graph.clip, "base"),
        graph.render(
            graph.out("LoraLoaderModelOnly", model=graph.model, lora_name=SUBJECT,
                      strength_model=0.9), graph.clip, "stock",
        ),
    ]  # fmt: skip
    for prune in (0.0, 0.8, 1.0):
        pruned = graph.node("PruneLoRA", model=graph.model, lora=SUBJECT, prune=prune, strength=0.9)
        drawn.append(graph.render([pruned, 0], graph.clip, f"pruned{prune:g}"))
    result = succeeded(server, graph)
    base, stock, whole, most, none = (saved_latent(server, result, node) for node in drawn)
    assert whole.equal(stock) and none.equal(base)
    assert 0.05 < float((most - base).norm() / (stock - base).norm()) < 1.5
    said = report(result, pruned)
    assert "88 modules, the smallest 100% of each module's entries are zero" in said
    assert "never saved as a LoRA" in said and "text-encoder modules are not used" in said


def scores(graph: Graph, **inputs: Any) -> str:
    return graph.node("AlignmentScores", **inputs)


def vision(graph: Graph, kind: str, width: int = 32) -> Link:
    return graph.out("SandboxVision", kind=kind, width=width)


def flat(graph: Graph, colour: int, side: int = SIDE, count: int = 1) -> Link:
    return graph.out("EmptyImage", width=side, height=side, batch_size=count, color=colour)


def test_alignment_of_a_folder_of_pictures_is_a_number_a_table_and_csv(
    server: ComfyServer,
) -> None:
    graph = Graph()
    folder = graph.out("LoadTrainingImages", folder="ziplora_subject")
    node = scores(
        graph, images=flat(graph, 0x804020, count=2), style_images=flat(graph, 0x804020, 40),
        subject_images=folder, clip_vision=vision(graph, "clip_vision"),
        dino=vision(graph, "dinov2"), clip=graph.clip, prompt="a dog", theme="light",
    )  # fmt: skip
    shown = [graph.node("PreviewAny", source=[node, slot]) for slot in (0, 1, 2, 4)]
    table = graph.node("PreviewImage", images=[node, 3])
    result = succeeded(server, graph)
    style, subject, text, csv = (report(result, n) for n in shown)
    assert abs(float(style) - 1) < 1e-6 and -1 < float(text) < 1 and -1 < float(subject) < 1
    said = report(result, node)
    assert "style (CLIP-I): 1.0000, mean of 2 pairs, CLIP of 3 layers, 48 wide" in said
    assert "mean of 10 pairs, DINOv2" in said and "DINOv2 is not the paper's DINO" in said
    assert [line.split(",")[0] for line in csv.splitlines()] == [
        "metric", "style (CLIP-I)", "subject (DINOv2)", "text (CLIP-T)",
    ]  # fmt: skip
    (drawn,) = pictures(server, result.outputs[table])
    assert drawn.shape[1] == 1024 and tuple(drawn[0, 0]) == LIGHT


def test_bad_input_of_the_new_nodes_is_named(server: ComfyServer) -> None:
    cases: list[tuple[Graph, str]] = []

    def case(words: str) -> Graph:
        cases.append((Graph(), words))
        return cases[-1][0]

    graph = case("merged: found no layer in which content and style can be told apart")
    graph.node("PlotMerge", merged=[graph.direct(graph.pair(), method="svd", rank=4), 0])
    graph = case("lora: found None, expected a LoRA from one of the two")
    graph.node("PlotWeights", lora="None")
    graph = case("lora: found None, expected a LoRA from one of the two")
    bare = graph.out("PruneLoRA", model=graph.model, lora="None", prune=0.8, strength=1.0)
    graph.render(bare, graph.clip, "never")
    graph = case("model_tuned: found a pruned LoRA on it")
    pruned = graph.out("PruneLoRA", model=graph.model, lora=SUBJECT, prune=0.8, strength=1.0)
    made = graph.node(
        "ExtractLoRA", model_tuned=pruned, model_base=graph.model, rank=4, layers="attention",
        seed=0,
    )  # fmt: skip
    graph.node("SaveTrainedLoRA", lora=[made, 0], filename_prefix="never", dtype="fp16")
    for strengths, words in (
        ("1, x", "content_strengths: found '1, x'"),
        ("", "content_strengths: found ''"),
        ("1, 0.5", "equal strengths: content and style are one LoRA"),
    ):
        graph = case(words)
        merged = graph.direct(graph.pair(), method="svd", rank=4)
        grid = strength_grid(graph, merged, content_strengths=strengths, style_strengths="1")
        graph.node("PreviewImage", images=[grid, 0])
    graph = case("found none of them")
    scores(graph, images=flat(graph, 0))
    graph = case("found CLIP of 3 layers, 48 wide, whose embeddings have 24 numbers")
    scores(
        graph, images=flat(graph, 0), clip_vision=vision(graph, "clip_vision", 24),
        clip=graph.clip, prompt="a dog",
    )  # fmt: skip
    for graph, words in cases:
        assert words in message_of(server, graph)


def test_alignment_that_was_not_measured_is_an_error_only_where_it_is_used(
    server: ComfyServer,
) -> None:
    graph = Graph()
    node = scores(
        graph, images=flat(graph, 9), style_images=flat(graph, 9),
        clip_vision=vision(graph, "clip_vision"),
    )  # fmt: skip
    graph.node("PreviewAny", source=[node, 0])
    succeeded(server, graph)
    graph.node("PreviewAny", source=[node, 2])
    result = server.run(graph.prompt)
    assert result.error and "text_alignment: found nothing" in result.error["exception_message"]
