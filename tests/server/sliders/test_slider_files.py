"""Sliders as others write them, with a ControlNet beside, and those that cannot work."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from sandbox.paths import use_comfyui
from sandbox.server import ComfyServer, PromptRejected

use_comfyui()

from sandbox import tiny  # noqa: E402
from sandbox.diffusers_reference import diffusers_unet  # noqa: E402
from sandbox.slider_reference import chosen_modules  # noqa: E402

from ..graph import (  # noqa: E402
    STYLE,
    SUBJECT,
    Graph,
    Link,
    assert_close,
    report,
    sentence,
    succeeded,
)
from .test_sliders import (  # noqa: E402
    CLOSE,
    SIDE,
    draw,
    image_slider,
    latents,
    pairs,
    preview,
    slider,
)

StateDict = dict[str, Tensor]
Write = Callable[[str, StateDict], str]


@pytest.fixture
def write(server: ComfyServer) -> Iterator[Write]:
    """Put model files into the server's folders for one test: `loras/a.pt`."""
    written: list[Path] = []

    def save(place: str, tensors: StateDict) -> str:
        path = server.models / place
        path.parent.mkdir(exist_ok=True)
        if path.suffix == ".pt":
            torch.save(tensors, path)
        else:
            contiguous = {key: tensor.contiguous() for key, tensor in tensors.items()}
            safetensors.torch.save_file(contiguous, path)
        written.append(path)
        server.object_info()  # as a person's refresh does
        return path.name

    yield save
    for path in written:
        path.unlink(missing_ok=True)


def factors(
    shapes: dict[str, tuple[int, ...]], rank: int, alpha: float, dtype: torch.dtype
) -> StateDict:
    """A random LoRA in kohya's keys; each update has half the norm of such a random weight."""
    rng, tensors = torch.Generator().manual_seed(4), {}
    for name, (out, *inner) in shapes.items():
        r = min(rank, out, inner[0])
        down = torch.randn(r, *inner, generator=rng) * math.prod(inner) ** -0.5
        up = torch.randn(out, r, *(1,) * (len(inner) - 1), generator=rng)
        tensors |= {
            f"lora_unet_{name}.lora_down.weight": down.to(dtype),
            f"lora_unet_{name}.lora_up.weight": (0.5 * up * rank**0.5 / alpha).to(dtype),
            f"lora_unet_{name}.alpha": torch.tensor(alpha).to(dtype),
        }
    return tensors


def public_slider() -> StateDict:
    """A file of rohitgandikota/sliders: diffusers' names, noxattn, rank 4, alpha 1, bf16."""
    unet = diffusers_unet(tiny.tiny_sdxl())
    shapes = {
        name.replace(".", "_"): tuple(unet.get_submodule(name).weight.shape)
        for name in chosen_modules(unet, "noxattn")
    }
    return factors(shapes, 4, 1.0, torch.bfloat16)


def toolkit_slider() -> StateDict:
    """A file of ai-toolkit: an ordinary LoRA in kohya's names, rank 8, alpha 4, fp16."""
    model = tiny.tiny_sdxl()
    shapes = {
        key.removeprefix("diffusion_model.").removesuffix(".weight").replace(".", "_"): tuple(
            model.get_model_object(key).shape
        )
        for key in tiny.attention_linears(model.model)
    }
    return factors(shapes, 8, 4.0, torch.float16)


@pytest.mark.parametrize(
    ("place", "make"),
    [
        ("loras/ageslider_alpha1.0_rank4_noxattn_last.pt", public_slider),
        ("loras/toolkit_slider.safetensors", toolkit_slider),
    ],
    ids=["public", "ai-toolkit"],
)
def test_files_of_other_trainers_equal_the_stock_lora_loader(
    place: str, make: Callable[[], StateDict], server: ComfyServer, write: Write
) -> None:
    name = write(place, make())
    graph = Graph()
    placed = graph.node(
        "ConceptSlider", model=graph.model, slider=name, scale=1.5, start_percent=0.0,
        end_percent=1.0,
    )  # fmt: skip
    stock = graph.out("LoraLoaderModelOnly", model=graph.model, lora_name=name, strength_model=1.5)
    nodes = [draw(graph, m, f"f{n}") for n, m in enumerate(([placed, 0], stock, graph.model))]
    before = len(server.log())
    got, want, base = latents(server, graph, *nodes)
    assert "lora key not loaded" not in server.log()[before:]
    assert_close(got, want, CLOSE)
    assert not torch.allclose(want, base, atol=1e-2)


def test_text_encoder_part_is_named_and_not_used(server: ComfyServer) -> None:
    graph = Graph()
    placed = graph.node(
        "ConceptSlider", model=graph.model, slider=SUBJECT, scale=1.0, start_percent=0.0,
        end_percent=1.0,
    )  # fmt: skip
    draw(graph, [placed, 0], "subject")
    said = report(succeeded(server, graph), placed)
    assert "text-encoder modules (lora_te1_text_model_encoder_layers_0_" in said
    assert "are not used" in said


def test_slider_goes_together_with_a_controlnet(server: ComfyServer, write: Write) -> None:
    name = write("controlnet/tiny_control.safetensors", tiny.tiny_controlnet())
    graph = Graph()
    controlled = graph.node(
        "ControlNetApplyAdvanced", positive=graph.text("a dog"), negative=graph.text("blurry"),
        control_net=graph.out("ControlNetLoader", control_net_name=name),
        image=graph.out("EmptyImage", width=SIDE, height=SIDE, batch_size=1, color=0xC08040),
        strength=0.5, start_percent=0.0, end_percent=1.0,
    )  # fmt: skip
    empty = graph.out("EmptyLatentImage", width=SIDE, height=SIDE, batch_size=1)

    def sampled(model: Link, prompts: list[Link], name: str) -> str:
        latent = graph.out(
            "KSampler", model=model, seed=3, steps=6, cfg=5.0, sampler_name="euler",
            scheduler="normal", denoise=1.0, positive=prompts[0], negative=prompts[1],
            latent_image=empty,
        )  # fmt: skip
        return graph.node("SaveLatent", samples=latent, filename_prefix=name)

    on = slider(graph, graph.model, STYLE, -0.8)
    stock = graph.out(
        "LoraLoaderModelOnly", model=graph.model, lora_name=STYLE, strength_model=-0.8
    )
    both = [[controlled, slot] for slot in range(2)]
    before = len(server.log())
    plain = [graph.text("a dog"), graph.text("blurry")]
    got, want, without_slider, without_control = latents(
        server, graph, sampled(on, both, "a"), sampled(stock, both, "b"),
        sampled(graph.model, both, "c"), sampled(on, plain, "d"),
    )  # fmt: skip
    assert "missing controlnet keys" not in server.log()[before:]
    assert_close(got, want, CLOSE)
    assert not torch.allclose(want, without_slider, atol=1e-2)
    assert not torch.allclose(want, without_control, atol=1e-2)


SD15 = {
    "down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q": (320, 320),
    "down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q": (640, 640),
    "mid_block_attentions_0_transformer_blocks_0_attn2_to_k": (1280, 768),
}
FLUX = {f"double_blocks_{n}_img_attn_qkv": (9216, 3072) for n in range(2)}


@pytest.mark.parametrize(
    ("shapes", "found"),
    [
        (SD15, ["1 of 3 modules", "no such weight", "Stable Diffusion 1"]),
        (FLUX, ["2 of 2 modules", "no such weight", "FLUX.1"]),
    ],
    ids=["SD 1.5", "Flux"],
)
def test_slider_for_another_architecture_says_how_much_of_it_and_why(
    shapes: dict[str, tuple[int, ...]], found: list[str], server: ComfyServer, write: Write
) -> None:
    name = write("loras/other_base.safetensors", factors(shapes, 4, 1.0, torch.float16))
    graph = Graph()
    message = sentence(server, preview(graph, slider(graph, graph.model, name, 1.0)))
    assert name in message and all(words in message for words in found), message


def swept(graph: Graph, **inputs: str) -> Graph:
    sweep = graph.node(
        "SliderSweep", model=graph.model, positive=graph.text("a dog"), negative=graph.text(""),
        latent=graph.out("EmptyLatentImage", width=SIDE, height=SIDE, batch_size=1), vae=graph.vae,
        **{"slider": STYLE, "scales": "1", **inputs}, start_percent=0.0, end_percent=1.0, seed=0,
        steps=2, cfg=5.0, sampler_name="euler", scheduler="normal",
    )  # fmt: skip
    graph.node("SaveImage", images=[sweep, 0], filename_prefix="never")
    return graph


@pytest.mark.parametrize("scales", ["0, 0.0", "", "one, two", "nan"])
def test_sweep_of_nothing_says_what_to_write(scales: str, server: ComfyServer) -> None:
    assert "scales: found" in sentence(server, swept(Graph(), scales=scales))
    rows = swept(Graph(), second_slider=SUBJECT, second_scales=scales)
    assert "second_scales: found" in sentence(server, rows)


def test_pairs_at_scale_zero_are_refused_also_when_it_is_wired_in(server: ComfyServer) -> None:
    graph = Graph()
    trained = image_slider(graph, pairs(graph, scale=0.0))
    graph.node("SaveImage", images=[trained, 3], filename_prefix="never")
    with pytest.raises(PromptRejected, match="scale"):
        server.run(graph.prompt)
    graph = Graph()
    wired = graph.out("PrimitiveFloat", value=0.0)
    trained = image_slider(graph, pairs(graph, scale=wired))
    graph.node("SaveImage", images=[trained, 3], filename_prefix="never")
    assert "scale: found 0" in sentence(server, graph)
