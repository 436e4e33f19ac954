"""The random checkpoint of `make real_size` is SDXL to ComfyUI's loader, and a valid file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import comfy.model_detection
import comfy.sdxl_clip
import comfy.supported_models
import pytest
import safetensors
import torch
from torch import Tensor

from bench.engine.models import SIZES
from card import random_checkpoint

UNET, VAE = "model.diffusion_model.", "first_stage_model."


@pytest.fixture(scope="module")
def shapes() -> dict[str, Tensor]:
    return random_checkpoint.shapes(SIZES["full"])


def test_random_checkpoint_is_detected_as_sdxl(shapes: dict[str, Tensor]) -> None:
    assert comfy.model_detection.unet_prefix_from_state_dict(shapes) == UNET
    config = comfy.model_detection.model_config_from_unet(shapes, UNET)
    assert type(config) is comfy.supported_models.SDXL
    count = sum(tensor.numel() for name, tensor in shapes.items() if name.startswith(UNET))
    assert count == 2_567_463_684


def test_random_checkpoint_has_both_text_encoders(shapes: dict[str, Tensor]) -> None:
    config = comfy.model_detection.model_config_from_unet(shapes, UNET)
    assert config is not None
    stored = {k: torch.empty(t.shape) for k, t in shapes.items() if k.startswith("conditioner.")}
    loaded = config.process_clip_state_dict(stored)
    model = comfy.sdxl_clip.SDXLClipModel(device=random_checkpoint.META, dtype=torch.bfloat16)
    wanted = {name: t.shape for name, t in model.state_dict().items() if t.ndim}
    del wanted["clip_l.transformer.text_projection.weight"]  # SDXL's checkpoints have none
    assert {name: loaded[name].shape for name in wanted} == wanted


def test_write_checkpoint_makes_a_file_that_reads_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shapes: dict[str, Tensor]
) -> None:
    norm, bias = f"{UNET}out.0.weight", f"{UNET}out.0.bias"
    some = {n: shapes[n] for n in (norm, bias, f"{UNET}time_embed.0.weight")}
    monkeypatch.setattr(random_checkpoint, "shapes", lambda scale: some)
    monkeypatch.setattr(random_checkpoint, "POOL", 1009)
    scale = replace(SIZES["full"], latent=16)
    path = random_checkpoint.write_checkpoint(tmp_path / "a.safetensors", scale)
    with safetensors.safe_open(path, "pt") as file:
        read = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert {n: (t.shape, t.dtype) for n, t in read.items()} == {
        n: (t.shape, torch.bfloat16) for n, t in some.items()
    }
    assert read[norm].eq(1).all() and read[bias].eq(0).all()
    drawn = read[f"{UNET}time_embed.0.weight"].float()
    assert 0.9 < float(drawn.std() * drawn.shape[1] ** 0.5) < 1.1
