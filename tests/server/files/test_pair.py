"""LoRAs as people bring them, in Load LoRA Pair through the live server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from sandbox.server import ComfyServer

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

Put = Callable[[str, Any], str]
SD15 = "lora_unet_down_blocks_{}_attentions_0_transformer_blocks_0_attn2_to_k"


def tensors_of(server: ComfyServer, name: str = SUBJECT) -> dict[str, Tensor]:
    return safetensors.torch.load_file(server.models / "loras" / name)


def refusal(server: ComfyServer, graph: Graph, node: str) -> str:
    """Run a graph that Load LoRA Pair is to refuse."""
    result = server.run(graph.prompt)
    assert result.error is not None, result.status
    assert result.error["exception_type"].endswith("ZipLoRAError"), result.error
    assert result.error["node_id"] == node
    return result.error["exception_message"].strip()


def reports(server: ComfyServer, **names: str) -> tuple[str, str]:
    """Load a pair and merge it directly; return both reports."""
    graph = Graph()
    pair = graph.pair(**names)
    merged = graph.direct(pair)
    graph.save(merged, "pair")
    result = succeeded(server, graph)
    return report(result, pair), report(result, merged)


def assert_applies_as_stock(server: ComfyServer, name: str, stock_name: str) -> str:
    """A pair of this LoRA and one at strength 0 is what the stock loader makes of another file."""
    graph = Graph()
    pair = graph.pair(name, STYLE, style_strength=0.0)
    applied = graph.apply(graph.direct(pair))
    ours = graph.render([applied, 0], [applied, 1], "ours")
    stock = graph.stock_lora(graph.model, graph.clip, stock_name)
    theirs = graph.render([stock, 0], [stock, 1], "stock")
    result = succeeded(server, graph)
    assert_close(saved_latent(server, result, ours), saved_latent(server, result, theirs))
    return report(result, pair)


def test_blocks_switched_off_by_alpha_zero_act_as_in_the_stock_loader(
    server: ComfyServer, put: Put
) -> None:
    tensors = tensors_of(server)
    off = [key for key in tensors if key.endswith(".alpha") and "output_blocks" in key]
    assert off
    name = put("remerged.safetensors", {**tensors, **{k: torch.tensor(0.0) for k in off}})
    said = assert_applies_as_stock(server, name, name)
    assert f"alpha 0 in {len(off)} of {len(tensors) // 3} modules: these are switched off" in said


@pytest.mark.parametrize("prefix", ["lora_unet__orig_mod_", "lora_unet_module_"])
def test_lora_of_a_compiled_or_data_parallel_unet_acts_as_the_plain_file(
    prefix: str, server: ComfyServer, put: Put
) -> None:
    tensors = tensors_of(server)
    wrapped = {key.replace("lora_unet_", prefix): tensor for key, tensor in tensors.items()}
    assert_applies_as_stock(server, put("wrapped.safetensors", wrapped), SUBJECT)


@pytest.mark.parametrize("how", ["untrained", "alpha 0"])
def test_lora_that_does_nothing_is_refused_where_it_is_loaded(
    how: str, server: ComfyServer, put: Put
) -> None:
    ends = {"untrained": ".lora_up.weight", "alpha 0": ".alpha"}[how]
    tensors = tensors_of(server)
    nothing = {key: t * (0 if key.endswith(ends) else 1) for key, t in tensors.items()}
    graph = Graph()
    pair = graph.pair(style=put("nothing.safetensors", nothing))
    graph.save(graph.direct(pair), "never")
    message = refusal(server, graph, pair)
    assert message.startswith("nothing.safetensors (style): found a LoRA that does nothing")
    assert "expected a trained LoRA" in message and message.endswith(".")


def test_same_lora_twice_is_a_warning_on_every_node(server: ComfyServer, put: Put) -> None:
    halved = {k: t * 0.5 if k.endswith(".alpha") else t for k, t in tensors_of(server).items()}
    for style in (SUBJECT, put("weaker.safetensors", halved)):
        loaded, merged = reports(server, style=style)
        for text in (loaded, merged):
            assert text.startswith("WARNING: content and style are the same LoRA, or nearly")
    loaded, merged = reports(server)
    assert "WARNING" not in loaded and "same LoRA" not in merged


def test_very_unequal_loras_are_told_with_the_strengths_that_balance_them(
    server: ComfyServer, put: Put
) -> None:
    style = tensors_of(server, STYLE)
    large = {k: t * 8 if k.endswith("lora_up.weight") else t for k, t in style.items()}
    name = put("large.safetensors", large)
    loaded, _ = reports(server, style=name)
    assert "‖ΔW‖ in the UNet: content" in loaded
    assert "the style will dominate a plain sum" in loaded
    balanced = float(loaded.partition("style_strength ")[2].partition(". ")[0])
    graph = Graph()
    pair = graph.pair(style=name, style_strength=balanced)
    graph.save(graph.direct(pair), "pair")
    assert "dominate" not in report(succeeded(server, graph), pair)


def test_halves_outside_half_precision_are_saved_as_the_same_lora(
    server: ComfyServer, put: Put
) -> None:
    sizes = {".lora_up.weight": 1e6, ".lora_down.weight": 1e-6}
    rescaled = {
        key: t.float() * next((size for end, size in sizes.items() if key.endswith(end)), 1.0)
        for key, t in tensors_of(server).items()
    }
    graph = Graph()
    lora = graph.node("ImportLoRA", model=graph.model, lora=put("huge.safetensors", rescaled))
    save = graph.node("SaveTrainedLoRA", lora=[lora, 0], filename_prefix="huge", dtype="fp16")
    stock = graph.stock_lora(graph.model, graph.clip, SUBJECT)
    source = graph.render([stock, 0], [stock, 1], "source")
    first = succeeded(server, graph)
    path = saved_path(first, save)
    graph = Graph()
    again = graph.stock_lora(
        graph.model, graph.clip, str(path.relative_to(server.output / "loras"))
    )
    rendered = graph.render([again, 0], [again, 1], "again")
    second = succeeded(server, graph)
    limit = 1e-2  # fp16
    assert_close(saved_latent(server, second, rendered), saved_latent(server, first, source), limit)


def sd15(names: list[str]) -> dict[str, Tensor]:
    """A LoRA with SD 1.5's widths; some of its names exist in SDXL, too."""
    tensors = {}
    for block, width in enumerate((320, 640, 1280)):
        name = SD15.format(block)
        tensors[f"{name}.{names[0]}"] = torch.ones(2, 768)
        tensors[f"{name}.{names[1]}"] = torch.ones(width, 2)
    return tensors


PLAIN = ["lora_down.weight", "lora_up.weight"]
OTHERS: dict[str, tuple[dict[str, Tensor], str]] = {
    "SD 1.x": (sd15(PLAIN), "Stable Diffusion 1.x"),
    "FLUX.1": (
        {
            "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": torch.ones(2, 64),
            "lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight": torch.ones(192, 2),
        },
        "FLUX.1",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHERS)
def test_loras_for_two_bases_are_refused_by_both_names_where_they_are_loaded(
    case: str, server: ComfyServer, put: Put
) -> None:
    tensors, base = OTHERS[case]
    graph = Graph()
    pair = graph.pair(style=put("other.safetensors", tensors))
    graph.save(graph.direct(pair), "never")
    message = refusal(server, graph, pair)
    assert message.startswith(
        f"my_subject.safetensors and other.safetensors: found LoRAs for SDXL and for {base}"
    )
