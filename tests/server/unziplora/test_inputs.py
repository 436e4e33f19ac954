"""Inputs of UnZipLoRA's nodes: options, saving and validation on the way, refusals."""

from __future__ import annotations

import math
from typing import Any

import pytest
import safetensors.torch
import torch

from sandbox.server import ComfyServer, PromptRejected

from ..graph import (
    STYLE,
    SUBJECT,
    Graph,
    assert_close,
    report,
    saved_latent,
    saved_path,
    succeeded,
)
from ..test_bad_input import message_of
from .unziplora_graph import (
    CONTENT,
    JOINT,
    STEPS,
    STYLED,
    apply,
    draw,
    picture,
    save,
    unzip,
)

THOROUGH = pytest.mark.thorough


@pytest.mark.thorough
def test_validation_draws_and_saves_both_loras_on_the_way(server: ComfyServer) -> None:
    graph = Graph()
    node = unzip(
        graph, images_per_validation=True, saves_per_validation=True, validation_steps=2, seed=7
    )
    content = save(graph, [node, 1], "validated_first")
    save(graph, [node, 2], "validated_second")
    result = succeeded(server, graph)
    assert f"{STEPS} of {STEPS} steps" in report(result, node)
    files = [server.output / "loras" / f for f in server.get(f"/ziplora/training/{node}")["saved"]]
    names = [f"validated_{part}_00002.safetensors" for part in ("content", "style")]
    assert [file.name for file in files] == names
    assert names == sorted(f.name for f in files[0].parent.glob("validated_*"))
    final = safetensors.torch.load_file(saved_path(result, content))
    on_the_way = safetensors.torch.load_file(files[0])
    assert set(on_the_way) == set(final)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "pieces", [(3, 1, 2), *(pytest.param(p, marks=THOROUGH) for p in ((3, 2, 2), (1, 2, 1)))]
)
def test_prompts_of_any_lengths_are_trained_on_shown_and_applied(
    pieces: tuple[int, int, int], server: ComfyServer
) -> None:
    """ComfyUI encodes a prompt in pieces of 77 tokens, 75 of them of words."""
    texts = (JOINT, CONTENT, STYLED)
    joint, *own = (f"{t} {'cat ' * 75 * (n - 1)}" for t, n in zip(texts, pieces, strict=True))
    graph = Graph()
    node = unzip(
        graph, prompt=joint, content_prompt=own[0], style_prompt=own[1], validation_steps=2,
        images_per_validation=True,
    )  # fmt: skip
    read = {
        f"{c}_conditioning": graph.text(t) for c, t in zip(("content", "style"), own, strict=True)
    }
    applied = apply(graph, [node, 0], **read)
    drawn = [draw(graph, m, "any", joint=joint) for m in ([applied, 0], graph.model)]
    result = succeeded(server, graph)
    assert f"{STEPS} of {STEPS} steps" in report(result, node)
    assert f"prompts of {math.lcm(*pieces[1:]) * 77} tokens each" in report(result, applied)
    assert server.get(f"/ziplora/training/{node}/samples/{STEPS}")[:2] == b"\xff\xd8"
    with_loras, without = (saved_latent(server, result, n) for n in drawn)
    assert torch.isfinite(with_loras).all() and not torch.allclose(with_loras, without, atol=1e-3)


def test_both_loras_feed_ziplora(server: ComfyServer) -> None:
    graph = Graph()
    node = unzip(graph)
    pair = graph.pair("None", "None", content_lora_model=[node, 1], style_lora_model=[node, 2])
    merged = graph.optimise(pair)
    graph.save(merged, "unzip/zipped")
    result = succeeded(server, graph)
    assert "5 steps" in report(result, merged)


def test_official_files_are_imported_from_the_loras_folder(server: ComfyServer) -> None:
    """The tiny SDXL has one transformer block a group, so diffusers' names are easily written."""
    place = server.models / "loras" / "official"
    stem = "mid_block.attentions.0.transformer_blocks.0.attn2.to_{}"
    for seed, concept in enumerate(("content", "style")):
        rng = torch.Generator().manual_seed(seed)
        weights, merge = {}, {}
        for name, width in (("q", 128), ("k", 64), ("v", 64), ("out.0", 128)):
            module = stem.format(name)
            weights[f"unet.unet.{module}.lora.up.weight"] = torch.randn(128, 4, generator=rng)
            weights[f"unet.unet.{module}.lora.down.weight"] = torch.randn(4, width, generator=rng)
            merge[f"unet.{module}.lora.merge_{concept}"] = torch.zeros(128)
        folder = place / f"OUT_{concept}"
        folder.mkdir(parents=True)
        safetensors.torch.save_file(weights, folder / "pytorch_lora_weights.safetensors")
        torch.save(merge, place / f"OUT_merger_{concept}.pth")
    files = {
        f"{concept}_lora": f"official/OUT_{concept}/pytorch_lora_weights.safetensors"
        for concept in ("content", "style")
    }
    mergers = {f"{c}_merger": f"official/OUT_merger_{c}.pth" for c in ("content", "style")}
    graph = Graph()
    plain = graph.node("ImportUnZipLoRA", model=graph.model, **files)
    weighed = graph.node("ImportUnZipLoRA", model=graph.model, **files, **mergers)
    nodes = [
        draw(graph, model, f"d{n}")
        for n, model in enumerate(
            (graph.model, [apply(graph, [plain, 0]), 0], [apply(graph, [weighed, 0]), 0])
        )
    ]
    result = succeeded(server, graph)
    base, changed, nothing = (saved_latent(server, result, node) for node in nodes)
    assert float((changed - base).abs().max()) > 1e-3
    assert_close(nothing, base, 1e-5)  # these mergers are all zero
    assert "4 UNet modules" in report(result, plain) and "without mergers" in report(result, plain)
    assert "its mergers folded in" in report(result, weighed)


@pytest.mark.thorough
def test_identical_prompts_train_with_a_warning(server: ComfyServer) -> None:
    graph = Graph()
    node = unzip(graph, content_prompt=STYLED)
    graph.save(node, "unzip/same")
    said = report(succeeded(server, graph), node)
    assert said.startswith("WARNING: content_prompt and style_prompt are the same")
    assert "UnZipLoRATrain: WARNING" in server.log()


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"prompt": " "}, "prompt: found nothing"),
        ({"content_prompt": ""}, "content_prompt: found nothing"),
        ({"style_prompt": ""}, "style_prompt: found nothing"),
        ({"column_ratio": 0.0}, "column_ratio: found 0"),
        ({"sample_times": 3}, "sample_times: found 3 in 4 steps"),
    ],
)
def test_bad_settings_are_said_before_anything_is_learned(
    inputs: dict[str, Any], words: str, server: ComfyServer
) -> None:
    graph = Graph()
    graph.save(unzip(graph, **inputs), "unzip/never")
    assert words in message_of(server, graph)


def test_picture_too_small_is_refused(server: ComfyServer) -> None:
    graph = Graph()
    graph.save(unzip(graph, picture(graph, 4)), "unzip/never")
    said = message_of(server, graph)
    assert said.startswith("image: found picture 1 of 4 × 4 pixels")
    assert "expected colour pictures of at least 8 × 8 pixels" in said


def test_ratio_above_one_is_refused_by_the_widget(server: ComfyServer) -> None:
    graph = Graph()
    graph.save(unzip(graph, column_ratio=1.5), "unzip/never")
    with pytest.raises(PromptRejected, match="column_ratio"):
        server.run(graph.prompt)


@pytest.mark.thorough
def test_merge_of_one_prompt_is_refused(server: ComfyServer) -> None:
    graph = Graph()
    merged = graph.direct(graph.pair(SUBJECT, STYLE))
    draw(graph, [apply(graph, [merged, 0]), 0], "never")
    assert "merged: found a merge whose content and style read one prompt" in message_of(
        server, graph
    )
    graph = Graph()
    merged = graph.direct(graph.pair(SUBJECT, STYLE))
    swapped = graph.out("RecombineUnZipLoRA", content_from=[merged, 0], style_from=[merged, 0])
    graph.node("SaveMergedLoRA", merged=swapped, filename_prefix="never", rank=0, dtype="fp32")
    assert "content_from: found a merge" in message_of(server, graph)
