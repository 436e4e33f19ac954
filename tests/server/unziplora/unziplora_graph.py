"""UnZipLoRA's nodes in prompts written as code."""

from __future__ import annotations

from typing import Any

from ..graph import Graph, Link

JOINT, CONTENT = "a monadikos cat in sketch style", "a monadikos cat"
STYLED = "a cat in sketch style"
STEPS = 4


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


def draw(
    graph: Graph, model: Link, name: str, cfg: float = 5.0, negative: str = "blurry",
    joint: str = JOINT,
) -> str:  # fmt: skip
    sampled = graph.out(
        "KSampler", model=model, seed=3, steps=4, cfg=cfg, sampler_name="euler",
        scheduler="normal", denoise=1.0, positive=graph.text(joint),
        negative=graph.text(negative),
        latent_image=graph.out("EmptyLatentImage", width=64, height=64, batch_size=2),
    )  # fmt: skip
    return graph.node("SaveLatent", samples=sampled, filename_prefix=name)


def save(graph: Graph, lora: Link, name: str) -> str:
    return graph.node("SaveTrainedLoRA", lora=lora, filename_prefix=f"unzip/{name}", dtype="fp32")
