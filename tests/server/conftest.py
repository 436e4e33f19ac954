"""Tests that talk to a running ComfyUI over HTTP; its fixture `server` is in tests/conftest.py."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def stock_prompt() -> dict[str, Any]:
    """Stock nodes from checkpoint to image, two steps at 64 × 64."""

    def text(words: str) -> dict[str, Any]:
        return {"class_type": "CLIPTextEncode", "inputs": {"text": words, "clip": ["1", 1]}}

    sampler = {
        "model": ["1", 0],
        "positive": ["2", 0],
        "negative": ["3", 0],
        "latent_image": ["4", 0],
        "seed": 0,
        "steps": 2,
        "cfg": 5.0,
        "sampler_name": "euler",
        "scheduler": "normal",
        "denoise": 1.0,
    }
    size = {"width": 64, "height": 64, "batch_size": 1}
    checkpoint = {"ckpt_name": "sd_xl_base_1.0.safetensors"}
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": checkpoint},
        "2": text("a photo of a dog"),
        "3": text(""),
        "4": {"class_type": "EmptyLatentImage", "inputs": size},
        "5": {"class_type": "KSampler", "inputs": sampler},
        "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
        "7": {
            "class_type": "SaveImage",
            "inputs": {"images": ["6", 0], "filename_prefix": "stock"},
        },
    }
