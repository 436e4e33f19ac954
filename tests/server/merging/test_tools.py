"""Classic operations through the live server: merge methods, resize, extract, and stock's merge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from sandbox.server import ComfyServer, PromptRejected

from ..graph import (
    CHECKPOINT,
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

PARTS = [
    ("model.diffusion_model.", "model.diffusion_model.", "lora_unet_"),
    ("conditioner.tiny.clip_l.transformer.", "conditioner.embedders.0.transformer.", "lora_te1_"),
]
"""Prefixes in the tiny checkpoint, in one that ComfyUI saves, and in a LoRA. (It joins the second
text encoder's q, k and v when it saves.)"""


def extract(graph: Graph, tuned: str, **inputs: Any) -> str:
    """ExtractLoRA of a LoraLoader's MODEL against the checkpoint: outputs lora, report."""
    settings = {"rank": 8, "layers": "all", "seed": 0, **inputs}
    return graph.node("ExtractLoRA", model_tuned=[tuned, 0], model_base=graph.model, **settings)


def resize(graph: Graph, lora: list[Any], **inputs: Any) -> str:
    settings = {"rank": 0, "method": "energy", "threshold": 0.9, **inputs}
    return graph.node("ResizeLoRA", lora=lora, **settings)


def save_trained(graph: Graph, node: str, slot: int, prefix: str, dtype: str = "fp32") -> str:
    return graph.node("SaveTrainedLoRA", lora=[node, slot], filename_prefix=prefix, dtype=dtype)


def deltas(path: Path) -> dict[str, Tensor]:
    """Dense float64 updates of a kohya file as matrices, by module name."""
    tensors = {k: t.double() for k, t in safetensors.torch.load_file(path).items()}
    found = {}
    for name in {key.split(".")[0] for key in tensors}:
        down, up = (tensors[f"{name}.lora_{half}.weight"] for half in ("down", "up"))
        scale = float(tensors[f"{name}.alpha"]) / len(down)
        found[name] = scale * up.flatten(1) @ down.flatten(1)
    return found


def metadata(path: Path) -> dict[str, str]:
    with safetensors.safe_open(path, "pt") as file:  # type: ignore[no-untyped-call]
        return file.metadata()


def test_svd_of_all_directions_draws_what_the_direct_merge_draws(server: ComfyServer) -> None:
    graph = Graph()
    pair = graph.pair(content_strength=0.9)
    latents = []
    for method in ("direct", "svd"):
        applied = graph.apply(graph.direct(pair, method=method, style_weight=0.7))
        latents.append(graph.render([applied, 0], [applied, 1], method))
    result = succeeded(server, graph)
    direct, svd = (saved_latent(server, result, node) for node in latents)
    assert_close(svd, direct)


def test_factor_average_of_a_lora_with_itself_draws_what_its_stock_loader_draws(
    server: ComfyServer,
) -> None:
    graph = Graph()
    merged = graph.direct(graph.pair(SUBJECT, SUBJECT), method="factor_average")
    applied = graph.apply(merged)
    ours = graph.render([applied, 0], [applied, 1], "ours")
    stock = graph.stock_lora(graph.model, graph.clip, SUBJECT)
    want = graph.render([stock, 0], [stock, 1], "stock")
    result = succeeded(server, graph)
    assert_close(saved_latent(server, result, ours), saved_latent(server, result, want))
    assert "(0.5 up_c + 0.5 up_s)(0.5 down_c + 0.5 down_s), not the sum" in report(result, merged)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0, 1.5])
def test_stock_lora_loader_and_checkpoint_save_add_strength_times_the_update(
    strength: float, server: ComfyServer
) -> None:
    """cloneofsimo's `upl`, W' = W + α ΔW, from a file of ours; linear in α."""
    graph = Graph()
    merged = graph.direct(graph.pair())
    saved = save_trained(graph, merged, 1, "upl")
    path = saved_path(succeeded(server, graph), saved)
    graph = Graph()
    tuned = graph.stock_lora(graph.model, graph.clip, path.name, strength)
    prefix = f"checkpoints/upl_{strength:g}"
    graph.node(
        "CheckpointSave", model=[tuned, 0], clip=[tuned, 1], vae=graph.vae, filename_prefix=prefix
    )
    succeeded(server, graph)

    before = safetensors.torch.load_file(server.models / "checkpoints" / CHECKPOINT)
    after = safetensors.torch.load_file(server.output / f"{prefix}_00001_.safetensors")
    changes = deltas(path)
    for loaded, stored, kohya in PARTS:
        for key in (k for k in after if k.startswith(stored) and k.endswith(".weight")):
            place = key.removeprefix(stored)
            want = before[loaded + place].double()
            change = changes.pop(kohya + place.removesuffix(".weight").replace(".", "_"), None)
            if change is not None:
                want = want + strength * change.reshape(want.shape)
            error = (after[key].double() - want).abs()
            assert (error <= 2.0**-10 * want.abs() + 2.0**-24).all(), key  # one step of fp16
    assert all(name.startswith("lora_te2_") for name in changes)


def test_extract_of_a_model_with_a_stock_lora_draws_what_it_draws(server: ComfyServer) -> None:
    graph = Graph()
    tuned = graph.stock_lora(graph.model, graph.clip, SUBJECT, 0.8)
    found = extract(graph, tuned, clip_tuned=[tuned, 1], clip_base=graph.clip)
    saved = save_trained(graph, found, 0, "extracted")
    want = graph.render([tuned, 0], [tuned, 1], "tuned")
    first = succeeded(server, graph)
    path = saved_path(first, saved)
    assert "relative error ‖difference − LoRA‖ / ‖difference‖: 0.00%" in report(first, found)
    assert json.loads(metadata(path)["ziplora.settings"])["rank"] == 8

    source = deltas(server.models / "loras" / SUBJECT)
    got = deltas(path)
    assert set(got) == set(source) and any(name.startswith("lora_te") for name in got)
    for name, change in source.items():
        assert float((got[name] - 0.8 * change).norm() / (0.8 * change).norm()) < 1e-4, name

    graph = Graph()
    again = graph.stock_lora(graph.model, graph.clip, path.name)
    ours = graph.render([again, 0], [again, 1], "again")
    second = succeeded(server, graph)
    assert_close(saved_latent(server, second, ours), saved_latent(server, first, want), 1e-3)


def test_extract_comes_closer_than_comfyuis_own_extraction_node(server: ComfyServer) -> None:
    graph = Graph()
    tuned = graph.stock_lora(graph.model, graph.clip, SUBJECT)
    difference = graph.out(
        "ModelMergeSubtract", model1=[tuned, 0], model2=graph.model, multiplier=1.0
    )
    graph.node("LoraSave", model_diff=difference, filename_prefix="loras/stock_extracted", rank=8,
               lora_type="standard", bias_diff=False)  # fmt: skip
    saved = save_trained(graph, extract(graph, tuned), 0, "own_extracted", "fp16")
    want = graph.render([tuned, 0], graph.clip, "tuned")
    result = succeeded(server, graph)
    files = ["stock_extracted_00001_.safetensors", saved_path(result, saved).name]
    errors = []
    for file in files:
        graph = Graph()
        again = graph.stock_lora(graph.model, graph.clip, file)
        node = graph.render([again, 0], graph.clip, "again")
        latent = saved_latent(server, succeeded(server, graph), node)
        errors.append(float((latent - saved_latent(server, result, want)).norm()))
    stock, ours = errors
    assert 5 * ours < stock


def test_extract_leaves_the_model_as_it_was(server: ComfyServer) -> None:
    graph = Graph()
    before = graph.render(graph.model, graph.clip, "before")
    first = saved_latent(server, succeeded(server, graph), before)
    graph = Graph()
    tuned = graph.stock_lora(graph.model, graph.clip, STYLE)
    save_trained(graph, extract(graph, tuned, seed=9), 0, "leaves")
    succeeded(server, graph)
    graph = Graph()
    after = graph.render(graph.model, graph.clip, "after", seed=3)
    assert torch.equal(saved_latent(server, succeeded(server, graph), after), first)


@pytest.mark.parametrize(("method", "threshold"), [("energy", 0.9), ("frobenius", 0.9)])
def test_resize_picks_the_ranks_and_errors_of_a_dense_svd(
    method: str, threshold: float, server: ComfyServer
) -> None:
    graph = Graph()
    merged = graph.direct(graph.pair())
    full = save_trained(graph, merged, 1, "full")
    small = resize(graph, [merged, 1], method=method, threshold=threshold)
    saved = save_trained(graph, small, 0, f"small_{method}")
    result = succeeded(server, graph)
    before, after = (deltas(saved_path(result, node)) for node in (full, saved))
    tensors = safetensors.torch.load_file(saved_path(result, saved))
    share = threshold if method == "energy" else threshold**2
    lost = total = 0.0
    for name, dense in before.items():
        squares = torch.linalg.svdvals(dense).square()
        rank = int((squares.cumsum(0) < share * squares.sum()).sum()) + 1
        assert len(tensors[f"{name}.lora_down.weight"]) == rank, name
        lost, total = lost + float(squares[rank:].sum()), total + float(squares.sum())
        assert float((after[name] - dense).square().sum()) == pytest.approx(
            float(squares[rank:].sum()), rel=1e-3
        )
    assert f"relative error {(lost / total) ** 0.5:.2%} over all modules" in report(result, small)
    said = metadata(saved_path(result, saved))
    assert json.loads(said["ziplora.content"])["name"] == SUBJECT
    assert json.loads(said["ziplora.resized"])["method"] == method


def test_resize_to_a_rank_above_all_changes_nothing(server: ComfyServer) -> None:
    graph = Graph()
    merged = graph.direct(graph.pair())
    small = resize(graph, [merged, 1], method="rank", rank=12)
    full, same = (
        save_trained(graph, node, slot, "same") for node, slot in ((merged, 1), (small, 0))
    )
    result = succeeded(server, graph)
    files = [safetensors.torch.load_file(saved_path(result, node)) for node in (full, same)]
    assert all(torch.equal(files[1][key], tensor) for key, tensor in files[0].items())
    assert "relative error 0.00%" in report(result, small)


def test_resize_rank_zero_with_method_rank_says_what_to_do(server: ComfyServer) -> None:
    graph = Graph()
    merged = graph.direct(graph.pair())
    save_trained(graph, resize(graph, [merged, 1], method="rank", rank=0), 0, "never")
    message = message_of(server, graph)
    assert message.startswith("rank: found 0 with method=rank") and "Set rank to 1" in message


def test_resize_threshold_out_of_range_is_comfyuis_own_400(server: ComfyServer) -> None:
    graph = Graph()
    merged = graph.direct(graph.pair())
    save_trained(graph, resize(graph, [merged, 1], threshold=1.5), 0, "never")
    with pytest.raises(PromptRejected) as refused:
        server.queue(graph.prompt)
    assert refused.value.status == 400 and "threshold" in json.dumps(refused.value.body)


@pytest.mark.parametrize(
    ("style", "weights", "found"),
    [
        (STYLE, (1.0, 1.0), r"modules that differ, e.g. lora_"),
        (SUBJECT, (0.5, -0.5), "0.5 and -0.5, which sum to 0"),
    ],
)
def test_factor_average_that_cannot_be_is_refused_with_what_to_do(
    style: str, weights: tuple[float, float], found: str, server: ComfyServer
) -> None:
    graph = Graph()
    merged = graph.direct(graph.pair(style=style), method="factor_average",
                          content_weight=weights[0], style_weight=weights[1])  # fmt: skip
    graph.save(merged, "never")
    message = message_of(server, graph)
    assert found in message and "method=direct" in message


def test_factor_average_refuses_unequal_strengths(server: ComfyServer) -> None:
    graph = Graph()
    applied = graph.apply(graph.direct(graph.pair(SUBJECT, SUBJECT), method="factor_average"), 1, 0)
    graph.render([applied, 0], [applied, 1], "never")
    assert "expected equal strengths" in message_of(server, graph)


def test_extract_from_equal_models_says_what_to_do(server: ComfyServer) -> None:
    graph = Graph()
    save_trained(graph, extract(graph, graph.model[0]), 0, "never")
    message = message_of(server, graph)
    assert "the two models are the same" in message and "model_tuned" in message


def test_extract_with_one_clip_says_what_to_do(server: ComfyServer) -> None:
    graph = Graph()
    tuned = graph.stock_lora(graph.model, graph.clip, SUBJECT)
    save_trained(graph, extract(graph, tuned, clip_tuned=[tuned, 1]), 0, "never")
    message = message_of(server, graph)
    assert message.startswith("clip_tuned and clip_base: found only one of the two")
