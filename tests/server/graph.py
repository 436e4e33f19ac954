"""API-format prompts written as code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from sandbox.server import ComfyServer, PromptRejected, Result

Link = list[Any]
CHECKPOINT = "sd_xl_base_1.0.safetensors"
SUBJECT, STYLE = "my_subject.safetensors", "my_style.safetensors"


def sentence(server: ComfyServer, graph: Graph) -> str:
    """Return what a node says that refuses its inputs, before anything runs or when it does."""
    try:
        result = server.run(graph.prompt)
    except PromptRejected as refused:
        errors = [e for node in refused.body["node_errors"].values() for e in node["errors"]]
        return errors[0]["details"].partition(" - ")[2]
    assert result.error is not None, result.status
    assert result.error["exception_type"].endswith("ZipLoRAError"), result.error
    return result.error["exception_message"].strip()


FEW_HELD_OUT: dict[str, Any] = {
    "optimiser": "auto", "schedule": "constant", "warm_up_steps": 0, "batch": 1,
    "accumulation": 1, "gradient_clip": 1.0, "min_snr_gamma": 0.0, "checkpoint_every": 50,
    "early_stop": True, "held_out_draws": 2, "resume": "auto", "caption_dropout": 0.0,
    "sample_every": 250, "sample_prompts": "",
}  # fmt: skip
"""The default training options, but a few held-out samples: these took half of a run's time."""
PICTURES = {"content": 0x804020, "style": 0x20A0C0}


class Graph:
    """A prompt under construction: `node` adds one and returns its id, `out` links to an output."""

    def __init__(self, checkpoint: str = CHECKPOINT) -> None:
        self.prompt: dict[str, Any] = {}
        loader = self.node("CheckpointLoaderSimple", ckpt_name=checkpoint)
        self.model, self.clip, self.vae = ([loader, slot] for slot in range(3))

    def node(self, class_type: str, **inputs: Any) -> str:
        node_id = str(len(self.prompt) + 1)
        self.prompt[node_id] = {"class_type": class_type, "inputs": inputs}
        return node_id

    def out(self, class_type: str, slot: int = 0, **inputs: Any) -> Link:
        return [self.node(class_type, **inputs), slot]

    def text(self, words: str, clip: Link | None = None) -> Link:
        return self.out("CLIPTextEncode", text=words, clip=clip or self.clip)

    def pair(self, content: str = SUBJECT, style: str = STYLE, **inputs: Any) -> str:
        """LoadLoRAPair: outputs pair, content_clip, style_clip, report."""
        settings = {"content_strength": 1.0, "style_strength": 1.0, "clip": self.clip, **inputs}
        return self.node("LoadLoRAPair", content_lora=content, style_lora=style, **settings)

    def direct(self, pair: str, **inputs: Any) -> str:
        settings = {
            "method": "direct",
            "content_weight": 1.0,
            "style_weight": 1.0,
            "rank": 0,
            **inputs,
        }
        return self.node("MergeLoRAs", model=self.model, pair=[pair, 0], **settings)

    def optimise(self, pair: str, drawn: bool = False, **inputs: Any) -> str:
        """ZipLoRAOptimize on each LoRA's own prompt: outputs merged, lora, loss, report.

        It gets its reference images, unless the LoRAs are to have them `drawn`, in 25 steps.
        """
        settings: dict[str, Any] = {
            "model": self.model,
            "pair": [pair, 0],
            "solver": "adam",
            "steps": 5,
            "learning_rate": 0.01,
            "similarity": "cosine",
            "similarity_weight": 0.01,
            "layers": "attention",
            "width": 64,
            "height": 64,
            "seed": 0,
            "memory": "auto",
        }
        if "options" not in inputs:
            settings["options"] = self.out("TrainingOptions", **FEW_HELD_OUT)
        settings["content_conditioning"] = self.text("a photo of sks dog", [pair, 1])
        settings["style_conditioning"] = self.text("a cat in watercolor style", [pair, 2])
        if not drawn:
            settings |= {f"{name}_latent": self.flat(color) for name, color in PICTURES.items()}
        return self.node("ZipLoRAOptimize", **{**settings, **inputs})

    def flat(self, color: int) -> Link:
        """The latent of an image of one color."""
        image = self.out("EmptyImage", width=64, height=64, batch_size=1, color=color)
        return self.out("VAEEncode", pixels=image, vae=self.vae)

    def apply(self, merged: str, content: float = 1.0, style: float = 1.0, **inputs: Any) -> str:
        """Apply a merge, as any loader does unless the inputs say otherwise."""
        return self.node(
            "ApplyMergedLoRA", model=self.model, merged=[merged, 0], clip=self.clip,
            content_strength=content, style_strength=style, **{"negative_strength": 1.0, **inputs},
        )  # fmt: skip

    def save(self, merged: str, prefix: str, rank: int = 0, dtype: str = "fp32") -> str:
        return self.node(
            "SaveMergedLoRA", merged=[merged, 0], filename_prefix=prefix, rank=rank, dtype=dtype
        )

    def stock_lora(self, model: Link, clip: Link, name: str, strength: float = 1.0) -> str:
        return self.node(
            "LoraLoader", model=model, clip=clip, lora_name=name,
            strength_model=strength, strength_clip=strength,
        )  # fmt: skip

    def render(self, model: Link, clip: Link, name: str, seed: int = 3) -> str:
        """Sample six steps and save the latent under `name`."""
        size = {"width": 64, "height": 64, "batch_size": 1}
        latent = self.out(
            "KSampler", model=model, seed=seed, steps=6, cfg=5.0, sampler_name="euler",
            scheduler="normal", denoise=1.0, latent_image=self.out("EmptyLatentImage", **size),
            positive=self.text("a sks dog in watercolor style", clip),
            negative=self.text("blurry", clip),
        )  # fmt: skip
        return self.node("SaveLatent", samples=latent, filename_prefix=name)


def succeeded(server: ComfyServer, graph: Graph, **options: Any) -> Result:
    """Run a graph that is to succeed."""
    result = server.run(graph.prompt, **options)
    assert result.status == "success", result.error
    return result


def saved_latent(server: ComfyServer, result: Result, node: str) -> Tensor:
    """Read what a SaveLatent node of this run has saved."""
    file = result.outputs[node]["latents"][0]
    path = server.output / file["subfolder"] / file["filename"]
    return safetensors.torch.load_file(path)["latent_tensor"]


def report(result: Result, node: str) -> str:
    return result.outputs[node]["text"][0]


def saved_path(result: Result, node: str) -> Path:
    return Path(report(result, node).splitlines()[0].removeprefix("saved: "))


def assert_close(got: Tensor, want: Tensor, limit: float = 1e-4) -> None:
    """The largest difference, relative to the scale of what is wanted."""
    error = float((got - want).abs().max() / want.square().mean().sqrt())
    assert error <= limit, error
