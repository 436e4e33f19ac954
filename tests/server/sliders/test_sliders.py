"""Concept sliders through the live server: put on, stacked, scheduled, trained, saved."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

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
    sentence,
    succeeded,
)

CLOSE = 2e-3
"""A branch beside a layer and a patched weight round differently."""
SIDE = 64


def slider(graph: Graph, model: Link, name: str, scale: float, **inputs: Any) -> Link:
    settings = {"start_percent": 0.0, "end_percent": 1.0, **inputs}
    return graph.out("ConceptSlider", model=model, slider=name, scale=scale, **settings)


def draw(graph: Graph, model: Link, name: str) -> str:
    return graph.render(model, graph.clip, name)


def latents(server: ComfyServer, graph: Graph, *nodes: str) -> list[Tensor]:
    result = succeeded(server, graph)
    return [saved_latent(server, result, node) for node in nodes]


def test_scale_zero_is_the_base_bit_for_bit_also_after_a_slider(server: ComfyServer) -> None:
    graph = Graph()
    before = draw(graph, graph.model, "before")
    on = draw(graph, slider(graph, graph.model, STYLE, 1.0), "on")
    off = draw(graph, slider(graph, graph.model, STYLE, 0.0), "off")
    base, changed, zero = latents(server, graph, before, on, off)
    assert torch.equal(zero, base) and not torch.allclose(changed, base, atol=1e-2)
    server.free()
    graph = Graph()
    (again,) = latents(server, graph, draw(graph, graph.model, "again"))
    assert torch.equal(again, base)


@pytest.mark.parametrize("scale", [1.0, -1.5, 0.3])
def test_slider_over_all_steps_equals_the_stock_lora_loader(
    scale: float, server: ComfyServer
) -> None:
    graph = Graph()
    ours = draw(graph, slider(graph, graph.model, STYLE, scale), "ours")
    patched = graph.out(
        "LoraLoaderModelOnly", model=graph.model, lora_name=STYLE, strength_model=scale
    )
    got, want = latents(server, graph, ours, draw(graph, patched, "stock"))
    assert_close(got, want, CLOSE)


def test_two_sliders_add_up_in_any_order_and_on_top_of_stock_loras(server: ComfyServer) -> None:
    graph = Graph()
    one = slider(graph, slider(graph, graph.model, STYLE, 0.7), SUBJECT, -0.5)
    two = slider(graph, slider(graph, graph.model, SUBJECT, -0.5), STYLE, 0.7)
    first = graph.out(
        "LoraLoaderModelOnly", model=graph.model, lora_name=SUBJECT, strength_model=-0.5
    )
    mixed = slider(graph, first, STYLE, 0.7)
    both = graph.out("LoraLoaderModelOnly", model=first, lora_name=STYLE, strength_model=0.7)
    drawn = latents(
        server, graph,
        *(draw(graph, m, f"d{n}") for n, m in enumerate((one, two, mixed, both))),
    )  # fmt: skip
    assert_close(drawn[0], drawn[1], 1e-4)
    for other in drawn[2:]:
        assert_close(drawn[0], other, CLOSE)


def test_slider_goes_together_with_a_merge(server: ComfyServer) -> None:
    graph = Graph()
    applied = graph.apply(graph.direct(graph.pair()))
    ours = draw(graph, slider(graph, [applied, 0], STYLE, 0.5), "ours")
    stock = graph.out(
        "LoraLoaderModelOnly", model=[applied, 0], lora_name=STYLE, strength_model=0.5
    )
    got, want = latents(server, graph, ours, draw(graph, stock, "stock"))
    assert_close(got, want, CLOSE)


@pytest.mark.parametrize("window", [(0.25, 0.75), (0.0, 0.4), (0.5, 1.0)])
def test_window_equals_the_stock_hook_keyframes(
    window: tuple[float, float], server: ComfyServer
) -> None:
    """Negative and positive prompt both see it: with the hook on one of them they would differ."""
    graph = Graph()
    ours = draw(
        graph,
        slider(graph, graph.model, STYLE, 0.8, start_percent=window[0], end_percent=window[1]),
        "ours",
    )
    hooks = graph.out("CreateHookLoraModelOnly", lora_name=STYLE, strength_model=0.8)
    frames: Link | None = None
    for percent, strength in ((0.0, 0.0), (window[0], 1.0), (window[1], 0.0)):
        if percent < 1.0 and (strength or percent or window[0]):  # each lasts for a step at least
            before = {"prev_hook_kf": frames} if frames else {}
            frames = graph.out(
                "CreateHookKeyframe", strength_mult=strength, start_percent=percent, **before
            )
    assert frames
    scheduled = graph.out("SetHookKeyframes", hooks=hooks, hook_kf=frames)
    prompts = graph.node(
        "PairConditioningSetProperties", strength=1.0, set_cond_area="default", hooks=scheduled,
        positive_NEW=graph.text("a sks dog in watercolor style"),
        negative_NEW=graph.text("blurry"),
    )  # fmt: skip
    size = {"width": SIDE, "height": SIDE, "batch_size": 1}
    sampled = graph.out(
        "KSampler", model=graph.model, seed=3, steps=6, cfg=5.0, sampler_name="euler",
        scheduler="normal", denoise=1.0, positive=[prompts, 0], negative=[prompts, 1],
        latent_image=graph.out("EmptyLatentImage", **size),
    )  # fmt: skip
    stock = graph.node("SaveLatent", samples=sampled, filename_prefix="stock")
    whole = draw(graph, slider(graph, graph.model, STYLE, 0.8), "whole")
    got, want, all_steps = latents(server, graph, ours, stock, whole)
    assert_close(got, want, CLOSE)
    assert not torch.allclose(got, all_steps, atol=1e-2)


def text_slider(graph: Graph, **inputs: Any) -> str:
    settings = {
        "target": "person", "positive": "old person", "negative": "young person", "neutral": "",
        "preserve": "male\nfemale", "guidance": 4.0, "action": "enhance", "layers": "noxattn",
        "rank": 4, "alpha": 4.0, "steps": 3, "learning_rate": 1e-2, "resolution": SIDE,
        "trajectory": "reused", "seed": 0, "memory": "auto",
    }  # fmt: skip
    return graph.node(
        "TrainConceptSlider", model=graph.model, clip=graph.clip, **{**settings, **inputs}
    )


def pairs(graph: Graph, low: int = 2, high: int = 2, **inputs: Any) -> Link:
    images = [
        graph.out("EmptyImage", width=SIDE, height=SIDE, batch_size=count, color=colour)
        for count, colour in ((low, 0x202020), (high, 0xD0D0D0))
    ]
    return graph.out(
        "ConceptSliderImagePairs", low_images=images[0], high_images=images[1],
        **{"scale": 1.0, **inputs},
    )  # fmt: skip


def image_slider(graph: Graph, of: Link, **inputs: Any) -> str:
    settings = {
        "positive": "", "neutral": "", "layers": "noxattn", "rank": 4, "alpha": 4.0, "steps": 3,
        "learning_rate": 1e-2, "resolution": SIDE, "seed": 0, "memory": "auto",
    }  # fmt: skip
    return graph.node(
        "TrainConceptSliderFromImages", model=graph.model, clip=graph.clip, vae=graph.vae,
        pairs=of, **{**settings, **inputs},
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["words", "pictures"])
def test_trained_slider_is_seen_saved_and_drawn_with(kind: str, server: ComfyServer) -> None:
    graph = Graph()
    if kind == "words":
        trained = text_slider(graph, vae=graph.vae)
    else:
        stronger = pairs(graph, previous=pairs(graph), scale=2.0)
        trained = image_slider(graph, stronger)
    effect = graph.node("SaveImage", images=[trained, 3], filename_prefix="effect")
    saved = graph.node(
        "SaveTrainedLoRA", lora=[trained, 0], filename_prefix=f"slider_{kind}", dtype="fp32"
    )
    wired = graph.out(
        "ConceptSlider", model=graph.model, slider="None", scale=2.0, start_percent=0.0,
        end_percent=1.0, slider_model=[trained, 0],
    )  # fmt: skip
    base, on = draw(graph, graph.model, "base"), draw(graph, wired, "wired")
    result = succeeded(server, graph)
    assert result.outputs[wired[0]]["ziplora_slider_range"] == [[-2, 2]]
    said = report(result, trained)
    assert "3 of 3 steps" in said and "UNet evaluations" in said
    of = "slider of 'person': enhance" if kind == "words" else "slider from 4 picture pairs"
    assert of in said
    assert "of what another seed changes" in said
    assert result.outputs[effect]["images"]
    assert any(b"\xff\xd8" in preview for preview in result.previews)
    name = str(saved_path(result, saved).relative_to(server.output / "loras"))

    again = Graph()
    stock = again.out("LoraLoaderModelOnly", model=again.model, lora_name=name, strength_model=2.0)
    placed = again.node(
        "ConceptSlider", model=again.model, slider=name, scale=3.0, start_percent=0.0,
        end_percent=1.0,
    )  # fmt: skip
    nodes = draw(again, stock, "stock"), draw(again, [placed, 0], "three")
    said_before = len(server.log())
    second = succeeded(server, again)
    assert "lora key not loaded" not in server.log()[said_before:]
    wanted = saved_latent(server, second, nodes[0])
    assert_close(saved_latent(server, result, on), wanted, CLOSE)
    assert not torch.allclose(wanted, saved_latent(server, result, base), atol=1e-3)
    assert "trained for -2 … 2, from 25% of the sampling on" in report(second, placed)
    assert "WARNING: scale 3 is outside" in report(second, placed)


@pytest.mark.parametrize(
    ("own", "second_window"),
    [
        ({}, (0.25, 1.0)),  # a workflow from before it had a window of its own
        ({"second_start_percent": 0.5, "second_end_percent": 0.9}, (0.5, 0.9)),
        ({"second_start_percent": -1.0, "second_end_percent": 0.7}, (0.25, 0.7)),
    ],
    ids=["shared", "own", "own end"],
)
def test_sweep_draws_what_single_sliders_draw(
    own: dict[str, float], second_window: tuple[float, float], server: ComfyServer
) -> None:
    graph = Graph()
    size = {"width": SIDE, "height": SIDE, "batch_size": 1}
    shared = {
        "positive": graph.text("a dog"), "negative": graph.text(""), "seed": 3, "steps": 4,
        "cfg": 5.0, "sampler_name": "euler", "scheduler": "normal",
    }  # fmt: skip
    empty = graph.out("EmptyLatentImage", **size)
    sweep = graph.node(
        "SliderSweep", model=graph.model, latent=empty, vae=graph.vae, slider=STYLE,
        scales="-1, 0, 2", start_percent=0.25, end_percent=1.0, second_slider=SUBJECT,
        second_scales="0 1", **own, **shared,
    )  # fmt: skip
    both = slider(
        graph, slider(graph, graph.model, STYLE, 2.0, start_percent=0.25), SUBJECT, 1.0,
        start_percent=second_window[0], end_percent=second_window[1],
    )  # fmt: skip
    sampled = graph.out("KSampler", model=both, latent_image=empty, denoise=1.0, **shared)
    decoded = graph.out("VAEDecode", samples=sampled, vae=graph.vae)
    files = [
        graph.node("SaveImage", images=images, filename_prefix="sweep")
        for images in ([sweep, 0], [sweep, 1], decoded)
    ]
    result = succeeded(server, graph)
    grid, single, last = (result.outputs[node]["images"] for node in files)
    assert len(grid) == 1 and len(single) == 6
    first, both, wanted = (
        pixels(server.output / image["filename"]) for image in (single[0], single[-1], last[0])
    )
    assert both == wanted and first != wanted


def pixels(path: Any) -> bytes:
    from PIL import Image

    return Image.open(path).convert("RGB").tobytes()


def preview(graph: Graph, model: Link) -> Graph:
    draw(graph, model, "never")
    return graph


def test_bad_input_is_said_before_any_training_starts(server: ComfyServer) -> None:
    cases = []
    graph = Graph()
    graph.node("SaveImage", images=[text_slider(graph, positive="", negative=""), 3],
               filename_prefix="never")  # fmt: skip
    cases.append((graph, "positive and negative: found nothing"))
    graph = Graph()
    graph.node("SaveImage", images=[image_slider(graph, pairs(graph, 2, 3)), 3],
               filename_prefix="never")  # fmt: skip
    cases.append((graph, "found 2 low and 3 high pictures"))
    graph = Graph()
    backwards = slider(graph, graph.model, STYLE, 1.0, start_percent=0.8, end_percent=0.2)
    cases.append((preview(graph, backwards), "start_percent and end_percent: found 0.8 and 0.2"))
    graph = Graph()
    cases.append(
        (
            preview(graph, slider(graph, graph.model, "None", 1.0)),
            "slider: found None, expected a LoRA",
        )
    )
    graph = Graph()
    size = {"width": SIDE, "height": SIDE, "batch_size": 1}
    swept = graph.out(
        "SliderSweep", model=graph.model, positive=graph.text("a dog"), negative=graph.text(""),
        latent=graph.out("EmptyLatentImage", **size), vae=graph.vae, slider=STYLE, scales="0, 1",
        start_percent=0.8, end_percent=0.2, seed=0, steps=1, cfg=1.0, sampler_name="euler",
        scheduler="normal",
    )  # fmt: skip
    graph.node("SaveImage", images=swept, filename_prefix="never")
    cases.append((graph, "start_percent and end_percent: found 0.8 and 0.2"))
    graph = Graph()
    model = slider(graph, graph.model, STYLE, 1.0)
    trained = text_slider(graph)
    graph.prompt[trained]["inputs"]["model"] = model
    graph.node("SaveImage", images=[trained, 3], filename_prefix="never")
    cases.append((graph, "injection ziplora_slider"))
    for graph, words in cases:
        assert words in sentence(server, graph)


def test_zero_steps_are_refused_by_the_widget(server: ComfyServer) -> None:
    from sandbox.server import PromptRejected

    graph = Graph()
    graph.node("SaveImage", images=[text_slider(graph, steps=0), 3], filename_prefix="never")
    with pytest.raises(PromptRejected, match="steps"):
        server.run(graph.prompt)
