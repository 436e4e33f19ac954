"""UnZipLoRA through the live server: trained, drawn with, saved, recombined, imported, refused."""

from __future__ import annotations

from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch

from sandbox.server import ComfyServer, PromptRejected, Result

from .graph import (
    STYLE,
    SUBJECT,
    Graph,
    Link,
    assert_close,
    report,
    saved_latent,
    saved_path,
    succeeded,
)

JOINT, CONTENT = "a monadikos cat in sketch style", "a monadikos cat"
STYLED = "a cat in sketch style"
STEPS = 4
CLOSE = 2e-3
"""A branch beside a layer and a patched weight round differently."""


def picture(graph: Graph, side: int = 64, colour: int = 0x884422) -> Link:
    return graph.out("EmptyImage", width=side, height=side, batch_size=1, color=colour)


def unzip(graph: Graph, image: Link | None = None, **inputs: Any) -> str:
    """UnZipLoRATrain with small numbers: outputs merged, content_lora, style_lora, loss, report."""
    settings: dict[str, Any] = {
        "prompt": JOINT, "content_prompt": CONTENT, "style_prompt": STYLED, "rank": 4,
        "steps": STEPS, "content_learning_rate": 1e-2, "style_learning_rate": 1e-2,
        "weight_learning_rate": 0.1, "similarity_weight": 0.5, "column_separation": True,
        "block_separation": True, "sample_times": 1, "column_ratio": 0.3,
        "images_per_validation": False, "saves_per_validation": False, "validation_steps": 50,
        "resolution": 64, "seed": 0, "memory": "auto", "importance_samples": 1,
    }  # fmt: skip
    return graph.node(
        "UnZipLoRATrain", model=graph.model, clip=graph.clip, vae=graph.vae,
        image=image or picture(graph), **{**settings, **inputs},
    )  # fmt: skip


def apply(graph: Graph, merged: Link, model: Link | None = None, **inputs: Any) -> str:
    settings: dict[str, Any] = {"content_strength": 1.0, "style_strength": 1.0}
    for concept, words in (("content", CONTENT), ("style", STYLED)):
        if f"{concept}_conditioning" not in inputs:
            settings[f"{concept}_conditioning"] = graph.text(words)
    return graph.node(
        "ApplyUnZipLoRA", model=model or graph.model, merged=merged, **{**settings, **inputs}
    )


def draw(graph: Graph, model: Link, name: str, cfg: float = 5.0, negative: str = "blurry") -> str:
    sampled = graph.out(
        "KSampler", model=model, seed=3, steps=4, cfg=cfg, sampler_name="euler",
        scheduler="normal", denoise=1.0, positive=graph.text(JOINT),
        negative=graph.text(negative),
        latent_image=graph.out("EmptyLatentImage", width=64, height=64, batch_size=2),
    )  # fmt: skip
    return graph.node("SaveLatent", samples=sampled, filename_prefix=name)


def save(graph: Graph, lora: Link, name: str) -> str:
    return graph.node("SaveTrainedLoRA", lora=lora, filename_prefix=f"unzip/{name}", dtype="fp32")


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


def test_validation_draws_and_saves_both_loras_on_the_way(server: ComfyServer) -> None:
    graph = Graph()
    node = unzip(
        graph, images_per_validation=True, saves_per_validation=True, validation_steps=2, seed=7
    )
    content = save(graph, [node, 1], "validated")
    result = succeeded(server, graph)
    assert f"{STEPS} of {STEPS} steps" in report(result, node)
    files = [server.output / "loras" / f for f in server.get(f"/ziplora/training/{node}")["saved"]]
    names = [f"step_00002_{part}_00001_.safetensors" for part in ("content", "style")]
    assert (
        [file.name for file in files] == names == sorted(f.name for f in files[0].parent.iterdir())
    )
    final = safetensors.torch.load_file(saved_path(result, content))
    on_the_way = safetensors.torch.load_file(files[0])
    assert set(on_the_way) == set(final)


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


def message_of(server: ComfyServer, graph: Graph) -> str:
    result = server.run(graph.prompt)
    assert result.error is not None and result.error["exception_type"].endswith("ZipLoRAError")
    return result.error["exception_message"].strip()
