"""Sessions in a card's dtypes: fp16 weights trained in bf16, and cards without bf16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.model_management
import pytest
import torch

from bench.engine.models import SIZES
from card.models import CardModels, open_models
from card.runs import RUNS
from sandbox import tiny
from sandbox.paths import DEVICE
from ziplora_core.comfy_adapter.model.private_copy import compute_dtype
from ziplora_core.comfy_adapter.train import slider_effect

from .trained import learned, train

STEPS = 3
NO_BACKWARD = "ZipLoRA Optimize, closed form"


@pytest.fixture
def as_on_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """Turn off --force-fp32, with which all other tests here run."""
    monkeypatch.setattr(comfy.model_management, "FORCE_FP32", False)
    monkeypatch.setattr(slider_effect, "STEPS", 3)


@pytest.fixture
def without_bf16(as_on_a_card: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make ComfyUI report a card without bf16, as of the RTX 20 series."""
    monkeypatch.setattr(comfy.model_management, "should_use_bf16", lambda *_, **__: False)


def train_anew(name: str, folder: Path) -> tuple[CardModels, Any]:
    models = open_models(SIZES["tiny"], drawn=True)
    return models, train(models, name, "low", STEPS, folder)


@pytest.mark.parametrize("name", RUNS)
def test_checkpoint_in_fp16_trains_in_bf16(name: str, as_on_a_card: None, tmp_path: Path) -> None:
    models, result = train_anew(name, tmp_path)
    assert models.model.model.diffusion_model.dtype == torch.float16
    device = models.model.load_device
    bf16 = comfy.model_management.should_use_bf16(device)
    assert bf16 or DEVICE != "pretend", "the pretend card has bfloat16"
    assert compute_dtype(device) == (torch.bfloat16 if bf16 else torch.float32)
    made = list(learned(result).values())
    assert len(made) >= 88 and all(torch.isfinite(t).all() for t in made)
    assert "not finite" not in result.report
    own = list(models.model.model.diffusion_model.parameters())
    assert {(p.device.type, p.dtype) for p in own} == {("cpu", torch.float16)}


def test_closed_form_in_half_precision_is_that_in_float32(
    as_on_a_card: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, half = train_anew(NO_BACKWARD, tmp_path)
    monkeypatch.setattr(comfy.model_management, "FORCE_FP32", True)
    _, full = train_anew(NO_BACKWARD, tmp_path)
    got, want = (
        torch.cat([m.flatten() for m in result.merged.coefficients.values()])
        for result in (half, full)
    )
    error, moved = (got - want).norm() / want.norm(), (want - 1).norm() / want.norm()
    assert error <= 0.1 < moved


@pytest.mark.parametrize("name", [NO_BACKWARD, "Train DreamBooth LoRA", "UnZipLoRA Train"])
def test_card_without_bf16_computes_in_fp16_what_has_no_backward_pass_and_says_the_rest(
    name: str, without_bf16: None, tmp_path: Path
) -> None:
    said: list[str] = []
    models = open_models(SIZES["tiny"], drawn=True)
    device = models.model.load_device
    assert compute_dtype(device, backward=False) == torch.float16
    assert compute_dtype(device) == torch.float32
    result = train(models, name, "low", STEPS, tmp_path, on_status=said.append)
    assert all(torch.isfinite(t).all() for t in learned(result).values())
    warned = "no bfloat16" in result.report
    assert warned == (name != NO_BACKWARD)


def test_tiny_models_prediction_on_the_device_is_the_cpus(tmp_path: Path) -> None:
    model, cpu = tiny.tiny_sdxl(), tiny.tiny_sdxl(device=torch.device("cpu"))
    prompt = tiny.tiny_clip().encode_from_tokens_scheduled(tiny.tiny_clip().tokenize("a dog"))
    x = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    got, want = (tiny.predict(m, x, 1.0, prompt) for m in (model, cpu))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
