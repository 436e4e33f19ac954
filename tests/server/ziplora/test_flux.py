"""FLUX.1 through the live server: loaded by ComfyUI's own node, merged, saved and drawn with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import safetensors.torch
import torch

from sandbox.paths import use_comfyui
from sandbox.server import ComfyServer
from ziplora_core.files import read_lora

from ..graph import Graph, Link, report, saved_latent, saved_path, sentence, succeeded

MODEL, LORAS = "tiny_flux.safetensors", ("flux_subject.safetensors", "flux_style.safetensors")
STEMS = {  # fused as kohya's trainers have them, and apart as diffusers has them
    LORAS[0]: {"lora_unet_double_blocks_0_img_attn_qkv": (128, 384)},
    LORAS[1]: {
        f"transformer.transformer_blocks.0.attn.to_{end}": (128, 128) for end in ("q", "k", "v")
    },
}


@pytest.fixture(scope="module")
def flux(server: ComfyServer) -> Iterator[None]:
    """The model and two LoRAs of it, which touch the same layer in two spellings."""
    use_comfyui()
    from sandbox.family_files import save_model

    files = [server.models / "diffusion_models" / MODEL]
    files[0].parent.mkdir(exist_ok=True)
    save_model("FLUX.1", files[0])
    for seed, (name, modules) in enumerate(STEMS.items()):
        generator = torch.Generator().manual_seed(seed)
        tensors = {}
        for stem, (width, out) in modules.items():
            ends = ("lora_A", "lora_B") if "." in stem else ("lora_down", "lora_up")
            tensors[f"{stem}.{ends[0]}.weight"] = torch.randn(4, width, generator=generator) * 0.1
            tensors[f"{stem}.{ends[1]}.weight"] = torch.randn(out, 4, generator=generator) * 0.3
        files.append(server.models / "loras" / name)
        safetensors.torch.save_file(tensors, files[-1])
    yield
    for file in files:
        file.unlink()


def flux_graph() -> Graph:
    """FLUX from its own loader; the tiny SDXL's text encoders have the width that it reads."""
    graph = Graph()
    graph.model = graph.out("UNETLoader", unet_name=MODEL, weight_dtype="default")
    return graph


def draw(graph: Graph, model: Link, name: str) -> str:
    latent = graph.out(
        "KSampler", model=model, seed=3, steps=4, cfg=1.0, sampler_name="euler",
        scheduler="simple", denoise=1.0,
        latent_image=graph.out("EmptySD3LatentImage", width=64, height=64, batch_size=1),
        positive=graph.text("a sks dog in watercolor style"), negative=graph.text(""),
    )  # fmt: skip
    return graph.node("SaveLatent", samples=latent, filename_prefix=name)


@pytest.mark.usefixtures("flux")
def test_merge_in_two_spellings_is_learned_saved_and_drawn_as_the_stock_loader_does(
    server: ComfyServer,
) -> None:
    graph = flux_graph()
    pair = graph.pair(*LORAS, clip=None)
    graph.prompt[pair]["inputs"].pop("clip")
    merged = graph.optimise(
        pair, drawn=True, solver="closed_form", calibration_states=6, passes=2,
        content_conditioning=graph.text("a photo of sks dog"),
        style_conditioning=graph.text("a cat in watercolor style"),
        joint_conditioning=graph.text("a sks dog in watercolor style"),
    )  # fmt: skip
    saved = graph.save(merged, "flux/merge")
    applied = graph.apply(merged)
    graph.prompt[applied]["inputs"].pop("clip")
    ours = draw(graph, [applied, 0], "ours")
    base = draw(graph, graph.model, "base")
    result = succeeded(server, graph)
    assert "error on noise not learned from" in report(result, merged)
    path = saved_path(result, saved)
    said = read_lora(path)
    assert [*said.modules] == ["lora_unet_double_blocks_0_img_attn_qkv"]
    assert said.metadata["modelspec.architecture"] == "flux-1-dev/lora"

    stock = flux_graph()
    loaded = stock.out(
        "LoraLoaderModelOnly", model=stock.model, strength_model=1.0,
        lora_name=str(path.relative_to(server.output / "loras")),
    )  # fmt: skip
    theirs = draw(stock, loaded, "theirs")
    want = saved_latent(server, succeeded(server, stock), theirs)
    got, plain = (saved_latent(server, result, node) for node in (ours, base))
    size = want.std()
    assert (got - want).abs().max() / size < 1e-3 < (want - plain).abs().max() / size


@pytest.mark.usefixtures("flux")
def test_loras_of_flux_on_sdxl_are_refused_by_both_names(server: ComfyServer) -> None:
    graph = Graph()
    pair = graph.pair(*LORAS, clip=None)
    graph.prompt[pair]["inputs"].pop("clip")
    graph.save(graph.direct(pair), "never")
    said = sentence(server, graph)
    assert "found a LoRA for FLUX.1" in said and "expected a LoRA for SDXL" in said
