"""Import LoRA and Export LoRA through the live server."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch

from sandbox.server import ComfyServer, PromptRejected

from ..graph import (
    CHECKPOINT,
    SUBJECT,
    Graph,
    assert_close,
    report,
    saved_latent,
    saved_path,
    sentence,
    succeeded,
)

Write = Callable[[str, Any], str]


def imported(graph: Graph, name: str) -> str:
    """ImportLoRA: outputs lora, report."""
    return graph.node("ImportLoRA", model=graph.model, lora=name)


def exported(graph: Graph, node: str, spelling: str, prefix: str = "out/x") -> str:
    return graph.node(
        "ExportLoRA", lora=[node, 0], filename_prefix=prefix, format=spelling, dtype="fp32"
    )


@pytest.mark.parametrize("spelling", ["kohya", "comfy"])
def test_exported_lora_in_the_stock_loader_equals_its_source(
    spelling: str, server: ComfyServer
) -> None:
    graph = Graph()
    node = imported(graph, SUBJECT)
    saved = exported(graph, node, spelling)
    stock = graph.stock_lora(graph.model, graph.clip, SUBJECT)
    source = graph.render([stock, 0], [stock, 1], "source")
    first = succeeded(server, graph)
    path = saved_path(first, saved)
    assert f"imported: {SUBJECT} (kohya), rank" in report(first, node)
    assert "read back and compared" in report(first, saved)

    graph = Graph()
    again = graph.stock_lora(
        graph.model, graph.clip, str(path.relative_to(server.output / "loras"))
    )
    rendered = graph.render([again, 0], [again, 1], "again")
    before = server.log().count("lora key not loaded")
    second = succeeded(server, graph)
    assert server.log().count("lora key not loaded") == before
    assert_close(saved_latent(server, second, rendered), saved_latent(server, first, source))


@pytest.mark.parametrize("spelling", ["peft", "diffusers", "ziplora"])
def test_export_for_another_program_is_listed_by_no_loader_and_imports_again(
    spelling: str, server: ComfyServer, put: Write
) -> None:
    graph = Graph()
    saved = exported(graph, imported(graph, SUBJECT), spelling, f"far/{spelling}")
    stock = graph.stock_lora(graph.model, graph.clip, SUBJECT)
    source = graph.render([stock, 0], graph.clip, "source")
    first = succeeded(server, graph)
    path = saved_path(first, saved)
    assert path.is_relative_to(server.output / "ziplora" / "exports" / "far")
    loaders = server.object_info()["LoraLoader"]["input"]["required"]["lora_name"]
    assert path.name not in json.dumps(loaders)

    name = put(f"from_{spelling}.safetensors", path)
    if spelling == "peft":
        config = path.with_name("adapter_config.json")
        shutil.copyfile(config, server.models / "loras" / config.name)
    graph = Graph()
    node = imported(graph, name)
    loaded = graph.out("LoraModelLoader", model=graph.model, lora=[node, 0], strength_model=1.0,
                       bypass=False)  # fmt: skip
    rendered = graph.render(loaded, graph.clip, "again")
    second = succeeded(server, graph)
    (server.models / "loras" / "adapter_config.json").unlink(missing_ok=True)
    assert_close(saved_latent(server, second, rendered), saved_latent(server, first, source))


def test_exported_slider_in_the_stock_loader_equals_its_source(server: ComfyServer) -> None:
    graph = Graph()
    saved = exported(graph, imported(graph, SUBJECT), "sliders", "age")
    stock = graph.stock_lora(graph.model, graph.clip, SUBJECT)
    source = graph.render([stock, 0], graph.clip, "source")
    first = succeeded(server, graph)
    path = saved_path(first, saved)
    assert path.suffix == ".pt" and "alpha1.0_rank" in path.name
    assert "for LoRANetwork(unet, rank=" in report(first, saved)

    graph = Graph()
    again = graph.stock_lora(graph.model, graph.clip, path.name)
    rendered = graph.render([again, 0], graph.clip, "again")
    second = succeeded(server, graph)
    assert_close(saved_latent(server, second, rendered), saved_latent(server, first, source))


def test_import_of_a_changed_file_is_not_served_from_the_cache(
    server: ComfyServer, put: Write
) -> None:
    stem = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"

    def lora(rank: int) -> dict[str, torch.Tensor]:
        down, up = torch.ones(rank, 64), torch.ones(64, rank)
        return {f"{stem}.lora_down.weight": down, f"{stem}.lora_up.weight": up}

    for rank in (1, 2):
        name = put("changing.safetensors", lora(rank))
        graph = Graph()
        node = imported(graph, name)
        exported(graph, node, "kohya", "changing")
        assert f"rank {rank}" in report(succeeded(server, graph), node)


def numbered(width: int) -> dict[str, torch.Tensor]:
    return {
        "unet:0:up": torch.zeros(320, 4),
        "unet:0:down": torch.zeros(4, 320),
        "unet:1:up": torch.zeros(320, 4),
        "unet:1:down": torch.zeros(4, width),
    }


DENSE = "unet.unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.lora.weight"
BAD: dict[str, tuple[str, Any, str]] = {
    "SD 1.x": ("old.safetensors", numbered(768), "a Stable Diffusion 1.x LoRA of the cloneofsimo"),
    "SD 2.x": ("old.pt", list(numbered(1024).values()), "a Stable Diffusion 2.x LoRA of the clon"),
    "unknown": ("odd.safetensors", numbered(77), "at best 0 of its 2 numbered shapes fit"),
    "half": ("half.pt", list(numbered(768).values())[:3], "key unet:1:down: found no such tensor"),
    "dense": ("full.safetensors", {DENSE: torch.randn(64, 64)}, "that is not low-rank"),
    "token": ("dog.ti.pt", {"<s1>": torch.ones(768)}, "found a textual inversion embedding"),
}


@pytest.mark.parametrize("case", BAD)
def test_import_of_a_file_that_does_not_fit_is_named_with_what_to_do(
    case: str, server: ComfyServer, put: Write
) -> None:
    name, content, found = BAD[case]
    graph = Graph()
    exported(graph, imported(graph, put(name, content)), "kohya")
    message = sentence(server, graph)
    assert message.startswith(name) and found in message
    assert "expected" in message and message.endswith(".")


def test_pair_of_a_numbered_file_advises_import_lora(server: ComfyServer, put: Write) -> None:
    graph = Graph()
    graph.save(graph.direct(graph.pair(style=put("new.safetensors", numbered(2048)))), "never")
    assert "Read it with Import LoRA" in sentence(server, graph)


@pytest.mark.parametrize(("spelling", "folder"), [("comfy", "loras"), ("peft", "ziplora/exports")])
@pytest.mark.parametrize("prefix", ["../escaped", "/tmp/escaped", ""])
def test_export_outside_its_folder_is_a_400(
    prefix: str, spelling: str, folder: str, server: ComfyServer
) -> None:
    graph = Graph()
    exported(graph, imported(graph, SUBJECT), spelling, prefix)
    with pytest.raises(PromptRejected) as refused:
        server.queue(graph.prompt)
    assert refused.value.status == 400
    assert f"expected a name inside output/{folder}" in json.dumps(refused.value.body)


def test_export_prefix_that_arrives_by_a_link_is_refused_when_it_runs(server: ComfyServer) -> None:
    graph = Graph()
    prefix: Any = graph.out("PrimitiveString", value="../escaped")
    exported(graph, imported(graph, SUBJECT), "diffusers", prefix)
    assert "expected a name inside output/ziplora/exports" in sentence(server, graph)


def test_export_of_a_lora_with_norms_advises_what_to_set(server: ComfyServer, put: Write) -> None:
    stem = "diffusion_model.input_blocks.4.1"
    tensors = {
        f"{stem}.proj_in.lora_down.weight": torch.ones(1, 64),
        f"{stem}.proj_in.lora_up.weight": torch.ones(64, 1),
        f"{stem}.norm.diff": torch.ones(64),
    }
    name = put("norms.safetensors", tensors)
    graph = Graph()
    node = imported(graph, name)
    exported(graph, node, "kohya")
    assert "Set bias_and_norm to drop" in sentence(server, graph)
    graph.prompt[node]["inputs"]["bias_and_norm"] = "drop"
    assert "1 bias and norm tensors left out" in report(succeeded(server, graph), node)


def test_checkpoint_is_not_a_lora(server: ComfyServer, put: Write) -> None:
    name = put("model.safetensors", server.models / "checkpoints" / CHECKPOINT)
    graph = Graph()
    exported(graph, imported(graph, name), "kohya")
    assert "Load Checkpoint" in sentence(server, graph)
