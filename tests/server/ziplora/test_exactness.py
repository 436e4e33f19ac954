"""The pack's results equal those of stock nodes, through the live server."""

from __future__ import annotations

import pytest
import torch

from sandbox.server import ComfyServer

from ..graph import (
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


def base_latent(server: ComfyServer, name: str) -> torch.Tensor:
    graph = Graph()
    node = graph.render(graph.model, graph.clip, name)
    return saved_latent(server, succeeded(server, graph), node)


def test_direct_merge_equals_two_chained_stock_loaders(server: ComfyServer) -> None:
    graph = Graph()
    merged = graph.direct(graph.pair(content_strength=0.9, style_strength=0.7))
    applied = graph.apply(merged)
    ours = graph.render([applied, 0], [applied, 1], "ours")
    first = graph.stock_lora(graph.model, graph.clip, SUBJECT, 0.9)
    second = graph.stock_lora([first, 0], [first, 1], STYLE, 0.7)
    stock = graph.render([second, 0], [second, 1], "stock")
    result = succeeded(server, graph)
    want = saved_latent(server, result, stock)
    assert_close(saved_latent(server, result, ours), want)
    assert float((want - base_latent(server, "base")).abs().max()) > 0.1


def hooked(graph: Graph, words: str, strength: float) -> Link:
    """Encode words, with both LoRAs as stock hooks on this prompt alone."""
    prompt = graph.text(words)
    if not strength:
        return prompt
    first = graph.out("CreateHookLoraModelOnly", lora_name=SUBJECT, strength_model=0.9 * strength)
    hooks = graph.out(
        "CreateHookLoraModelOnly",
        lora_name=STYLE,
        strength_model=0.7 * strength,
        prev_hooks=first,
    )
    return graph.out(
        "ConditioningSetProperties",
        cond_NEW=prompt,
        strength=1.0,
        set_cond_area="default",
        hooks=hooks,
    )


@pytest.mark.parametrize("negative", [0.0, 0.5])
def test_negative_strength_equals_stock_hooks_on_each_prompt(
    negative: float, server: ComfyServer
) -> None:
    graph = Graph()
    merged = graph.direct(graph.pair())
    halves = graph.apply(merged, 0.9, 0.7, negative_strength=negative)
    ours, whole = (
        graph.render([applied, 0], graph.clip, name)
        for applied, name in ((halves, "ours"), (graph.apply(merged, 0.9, 0.7), "whole"))
    )
    size = {"width": 64, "height": 64, "batch_size": 1}
    sampled = graph.out(
        "KSampler", model=graph.model, seed=3, steps=6, cfg=5.0, sampler_name="euler",
        scheduler="normal", denoise=1.0, latent_image=graph.out("EmptyLatentImage", **size),
        positive=hooked(graph, "a sks dog in watercolor style", 1.0),
        negative=hooked(graph, "blurry", negative),
    )  # fmt: skip
    stock = graph.node("SaveLatent", samples=sampled, filename_prefix="stock")
    result = succeeded(server, graph)
    got, want, plain = (saved_latent(server, result, node) for node in (ours, stock, whole))
    assert_close(got, want, 2e-3)
    assert float((want - plain).abs().max()) > 0.05
    shared = {0.0: "without the merge", 0.5: "with 0.5 of the merge"}[negative]
    assert report(result, halves).startswith(
        f"content 0.9, style 0.7; the negative prompt is drawn {shared}"
    )


@pytest.mark.parametrize(("content", "style", "alone"), [(1.0, 0.0, SUBJECT), (0.0, 1.0, STYLE)])
def test_one_strength_zero_equals_the_other_lora_alone(
    content: float, style: float, alone: str, server: ComfyServer
) -> None:
    graph = Graph()
    applied = graph.apply(graph.direct(graph.pair()), content, style)
    ours = graph.render([applied, 0], [applied, 1], "ours")
    single = graph.stock_lora(graph.model, graph.clip, alone)
    stock = graph.render([single, 0], [single, 1], "stock")
    result = succeeded(server, graph)
    assert_close(saved_latent(server, result, ours), saved_latent(server, result, stock))


@pytest.mark.parametrize(("dtype", "limit"), [("fp32", 1e-4), ("fp16", 2e-2)])
def test_saved_merge_in_stock_and_own_loader_equals_the_live_merge(
    dtype: str, limit: float, server: ComfyServer
) -> None:
    graph = Graph()
    merged = graph.optimise(graph.pair(), steps=10, learning_rate=0.05)
    saved = graph.save(merged, f"exact/{dtype}", dtype=dtype)
    applied, weak = graph.apply(merged), graph.apply(merged, 0.8, 0.3)
    live = graph.render([applied, 0], [applied, 1], "live")
    live_weak = graph.render([weak, 0], [weak, 1], "live_weak")
    first = succeeded(server, graph)
    name = str(saved_path(first, saved).relative_to(server.output / "loras"))

    graph = Graph()
    stock = graph.stock_lora(graph.model, graph.clip, name)
    from_stock = graph.render([stock, 0], [stock, 1], "stock")
    loaded = graph.node("LoadMergedLoRA", merged_lora=name)
    again = graph.apply(loaded, 0.8, 0.3)
    from_own = graph.render([again, 0], [again, 1], "own")
    before = server.log().count("lora key not loaded")
    second = succeeded(server, graph)
    assert server.log().count("lora key not loaded") == before

    want = saved_latent(server, first, live)
    assert_close(saved_latent(server, second, from_stock), want, limit)
    assert_close(
        saved_latent(server, second, from_own), saved_latent(server, first, live_weak), limit
    )
    assert "largest relative error" in report(first, saved)
    assert float((want - saved_latent(server, first, live_weak)).abs().max()) > 0.05


def test_reduced_merge_reports_its_error_and_refuses_unequal_strengths(
    server: ComfyServer,
) -> None:
    graph = Graph()
    merged = graph.direct(graph.pair())
    saved = graph.save(merged, "reduced", rank=6)
    result = succeeded(server, graph)
    assert "reduced to rank 6: relative error" in report(result, saved)
    name = saved_path(result, saved).name

    graph = Graph()
    applied = graph.apply(graph.node("LoadMergedLoRA", merged_lora=name), 1.0, 0.5)
    graph.render([applied, 0], [applied, 1], "x")
    failed = server.run(graph.prompt)
    assert failed.error is not None
    assert "expected equal strengths" in failed.error["exception_message"]

    graph = Graph()
    applied = graph.apply(graph.node("LoadMergedLoRA", merged_lora=name), 0.5, 0.5)
    ours = graph.render([applied, 0], [applied, 1], "ours")
    stock = graph.stock_lora(graph.model, graph.clip, name, 0.5)
    want = graph.render([stock, 0], [stock, 1], "stock")
    result = succeeded(server, graph)
    assert_close(saved_latent(server, result, ours), saved_latent(server, result, want))


def test_base_output_before_and_after_an_optimisation_is_bit_identical(
    server: ComfyServer,
) -> None:
    before = base_latent(server, "before")
    graph = Graph()
    merged = graph.optimise(graph.pair(), seed=11)
    applied = graph.apply(merged)
    graph.render([applied, 0], [applied, 1], "merged")
    sampler = graph.render(graph.model, graph.clip, "after", seed=3)
    result = succeeded(server, graph)
    assert sampler in result.executed
    assert torch.equal(saved_latent(server, result, sampler), before)
    server.free()
    assert torch.equal(base_latent(server, "reloaded"), before)


def test_lora_and_loss_outputs_work_with_the_stock_nodes(server: ComfyServer) -> None:
    graph = Graph()
    merged = graph.optimise(graph.pair(clip=graph.clip), steps=4)
    applied = graph.apply(merged)
    live = graph.render([applied, 0], graph.clip, "live")
    stock = graph.out("LoraModelLoader", model=graph.model, lora=[merged, 1],
                      strength_model=1.0, bypass=False)  # fmt: skip
    from_stock = graph.render(stock, graph.clip, "stock")
    graph.node("SaveLoRA", lora=[merged, 1], prefix="loras/stock_saved")
    plot = graph.node("LossGraphNode", loss=[merged, 2], filename_prefix="loss")
    ours = graph.node("SaveTrainedLoRA", lora=[merged, 1], filename_prefix="trained", dtype="fp32")
    result = succeeded(server, graph)
    want = saved_latent(server, result, live)
    assert_close(saved_latent(server, result, from_stock), want)
    assert result.outputs[plot]["images"]

    graph = Graph()
    name = saved_path(result, ours).name
    again = graph.stock_lora(graph.model, graph.clip, name)
    node = graph.render([again, 0], graph.clip, "again")
    assert_close(saved_latent(server, succeeded(server, graph), node), want)


def test_lora_model_inputs_take_the_place_of_files(server: ComfyServer) -> None:
    graph = Graph()
    first = graph.direct(graph.pair())
    pair = graph.pair("None", STYLE, content_lora_model=[first, 1], style_strength=-0.5)
    merged = graph.direct(pair)
    applied = graph.apply(merged)
    ours = graph.render([applied, 0], [applied, 1], "ours")
    one = graph.stock_lora(graph.model, graph.clip, SUBJECT)
    two = graph.stock_lora([one, 0], [one, 1], STYLE, 0.5)
    want = graph.render([two, 0], [two, 1], "want")
    result = succeeded(server, graph)
    assert_close(saved_latent(server, result, ours), saved_latent(server, result, want))


def test_lora_of_the_stock_trainer_is_saved_and_loads(server: ComfyServer) -> None:
    graph = Graph()
    latent = graph.out("EmptyLatentImage", width=64, height=64, batch_size=1)
    settings = {
        "batch_size": 1, "grad_accumulation_steps": 1, "steps": 1, "learning_rate": 0.01,
        "rank": 2, "optimizer": "AdamW", "loss_function": "MSE", "seed": 0,
        "training_dtype": "none", "lora_dtype": "fp32", "quantized_backward": False,
        "algorithm": "LoRA", "gradient_checkpointing": False, "checkpoint_depth": 1,
        "offloading": False, "existing_lora": "[None]", "bucket_mode": False, "bypass_mode": False,
    }  # fmt: skip
    trained = graph.node("TrainLoraNode", model=graph.model, latents=latent,
                         positive=graph.text("a dog"), **settings)  # fmt: skip
    refused = graph.node("SaveTrainedLoRA", lora=[trained, 0], filename_prefix="core",
                         dtype="fp32")  # fmt: skip
    failed = server.run(graph.prompt)
    assert failed.error is not None
    assert "Set bias_and_norm to drop" in failed.error["exception_message"]
    graph.prompt[refused]["inputs"]["bias_and_norm"] = "drop"
    result = succeeded(server, graph)
    assert "bias" in report(result, refused)
    name = saved_path(result, refused).name

    graph = Graph()
    loaded = graph.stock_lora(graph.model, graph.clip, name)
    graph.render([loaded, 0], graph.clip, "core")
    before = server.log().count("lora key not loaded")
    succeeded(server, graph)
    assert server.log().count("lora key not loaded") == before


def test_closed_form_without_steps_has_a_loss_to_plot(server: ComfyServer) -> None:
    graph = Graph()
    solved = graph.optimise(graph.pair(), solver="closed_form", calibration_states=3)
    graph.node("LossGraphNode", loss=[solved, 2], filename_prefix="closed_form")
    said = report(succeeded(server, graph), solved)
    assert "error on noise not learned from, as a share of the direct merge's: 1.00 → " in said
    assert "memory=" not in said, "no backward pass, no plan for one"
