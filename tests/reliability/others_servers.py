"""The pack on live servers: start options, and a queue of 50 prompts."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from sandbox.paths import DEVICE
from sandbox.server import ComfyServer, fresh_base

from .promise import Promise

OPTIONS = ("--fast", "--multi-user", "--disable-smart-memory")
ON_A_CARD = ("--lowvram", "--novram")
"""Options that ComfyUI refuses beside --cpu."""
QUEUE = 50
STYLE, SUBJECT = "my_style.safetensors", "my_subject.safetensors"
CLOSE = 1e-4
GROWTH = 100 * 2**20
"""Bytes by which a server may grow over the queue."""


def _graph(seed: int, scale: float = 0.8) -> dict[str, Any]:
    """Make a prompt that draws with a stock LoRA, a merge and a slider, and saves the latent."""

    def text(words: str) -> dict[str, Any]:
        return {"class_type": "CLIPTextEncode", "inputs": {"text": words, "clip": ["1", 1]}}

    nodes: dict[str, tuple[str, dict[str, Any]]] = {
        "1": ("CheckpointLoaderSimple", {"ckpt_name": "sd_xl_base_1.0.safetensors"}),
        "2": ("LoraLoaderModelOnly", {"model": ["1", 0], "lora_name": SUBJECT,
                                      "strength_model": 0.4}),
        "3": ("LoadLoRAPair", {"content_lora": SUBJECT, "style_lora": STYLE,
                               "content_strength": 1.0, "style_strength": 1.0}),
        "4": ("MergeLoRAs", {"model": ["1", 0], "pair": ["3", 0], "method": "direct",
                             "content_weight": 1.0, "style_weight": 1.0, "rank": 0}),
        "5": ("ApplyMergedLoRA", {"model": ["2", 0], "merged": ["4", 0], "clip": ["1", 1],
                                  "content_strength": 0.5, "style_strength": 0.5,
                                  "negative_strength": 0.0}),
        "6": ("ConceptSlider", {"model": ["5", 0], "slider": STYLE, "scale": scale,
                                "start_percent": 0.25, "end_percent": 1.0}),
        "9": ("EmptyLatentImage", {"width": 64, "height": 64, "batch_size": 1}),
        "10": ("KSampler", {"model": ["6", 0], "positive": ["7", 0], "negative": ["8", 0],
                            "latent_image": ["9", 0], "seed": seed, "steps": 4, "cfg": 5.0,
                            "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}),
        "11": ("SaveLatent", {"samples": ["10", 0], "filename_prefix": "others"}),
    }  # fmt: skip
    prompt = {k: {"class_type": kind, "inputs": inputs} for k, (kind, inputs) in nodes.items()}
    return {**prompt, "7": text("a sks dog in watercolor style"), "8": text("blurry")}


def _drawn(server: ComfyServer, seed: int, scale: float = 0.8) -> Tensor:
    result = server.run(_graph(seed, scale))
    if result.status != "success":
        raise RuntimeError(f"the prompt failed: {result.error}")
    (file,) = result.outputs["11"]["latents"]
    path = server.output / file["subfolder"] / file["filename"]
    return safetensors.torch.load_file(path)["latent_tensor"]


def _difference(got: Tensor, want: Tensor) -> float:
    return float((got - want).abs().max() / want.square().mean().sqrt())


def _resident(server: ComfyServer) -> int:
    """Return the bytes of memory that the server's process has."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if "VmRSS" in line).split()[1])


def _queue(server: ComfyServer) -> tuple[Promise, Promise]:
    """Draw 50 pictures with changing seeds and scales, some of them twice."""
    first = [_drawn(server, seed, 0.1 * (seed % 7) - 0.3) for seed in range(5)]
    level, differ = _resident(server), []
    for n in range(QUEUE):
        seed = n % 5
        got = _drawn(server, seed, 0.1 * (seed % 7) - 0.3 + (0.0 if n % 2 else 0.05))
        if n % 2 and not got.equal(first[seed]):
            differ.append(f"prompt {n}: {_difference(got, first[seed]):.1e}")
    grown = _resident(server) - level
    return (
        Promise("A prompt gives the same latent in a long queue as alone", QUEUE // 2,
                QUEUE // 2 - len(differ), "compared bit by bit", differ),
        Promise("A queue of 50 prompts does not fill the memory", 1, int(grown < GROWTH),
                f"{grown / 2**20:+.1f} MiB after {QUEUE} prompts",
                [] if grown < GROWTH else [f"{grown:,} bytes"]),
    )  # fmt: skip


def measure() -> list[Promise]:
    """Run the same prompt on servers with each start option, and the queue on one without."""
    options = OPTIONS if DEVICE == "cpu" else (*OPTIONS, *ON_A_CARD)
    with tempfile.TemporaryDirectory() as folder:
        base = fresh_base(Path(folder))
        with ComfyServer(base) as server:
            want = _drawn(server, 3)
            promises = _queue(server)
        found: dict[str, float] = {}
        for option in options:
            with ComfyServer(base, None, option) as server:
                found[option] = _difference(_drawn(server, 3), want)
    broken = [f"{option}: {value:.1e}" for option, value in found.items() if value > CLOSE]
    figures = "; ".join(f"{option} {value:.1e}" for option, value in found.items())
    text = "A start option of ComfyUI does not change a picture"
    return [Promise(text, len(found), len(found) - len(broken), figures, broken), *promises]
