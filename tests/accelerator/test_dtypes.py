"""Sessions in a card's dtypes: weights in fp16, trained in bf16, and on cards without bf16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.model_management
import pytest
import torch

from bench.engine.models import SIZES
from card.runs import RUNS
from card.studio import Studio, open_studio
from sandbox import tiny
from ziplora_core.comfy_adapter import slider_effect
from ziplora_core.comfy_adapter.private_copy import compute_dtype

from .trained import learned, train

STEPS = 3
NO_BACKWARD = "ZipLoRA Optimize, closed form"


@pytest.fixture
def as_on_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """The flag as it is without --force-fp32, which everything else here is compared with."""
    monkeypatch.setattr(comfy.model_management, "FORCE_FP32", False)
    monkeypatch.setattr(slider_effect, "STEPS", 3)


@pytest.fixture
def without_bf16(as_on_a_card: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A card of the RTX 20 series, by ComfyUI's own question."""
    monkeypatch.setattr(comfy.model_management, "should_use_bf16", lambda *_, **__: False)


def train_anew(name: str, folder: Path) -> tuple[Studio, Any]:
    studio = open_studio(SIZES["tiny"], drawn=True)
    return studio, train(studio, name, "low", STEPS, folder)


@pytest.mark.parametrize("name", RUNS)
def test_checkpoint_in_fp16_trains_in_bf16(name: str, as_on_a_card: None, tmp_path: Path) -> None:
    studio, result = train_anew(name, tmp_path)
    assert studio.model.model.diffusion_model.dtype == torch.float16
    assert compute_dtype(studio.model.load_device) == torch.bfloat16
    made = list(learned(result).values())
    assert len(made) >= 88 and all(torch.isfinite(t).all() for t in made)
    assert "not finite" not in result.report
    own = list(studio.model.model.diffusion_model.parameters())
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
    studio = open_studio(SIZES["tiny"], drawn=True)
    device = studio.model.load_device
    assert compute_dtype(device, backward=False) == torch.float16
    assert compute_dtype(device) == torch.float32
    result = train(studio, name, "low", STEPS, tmp_path, on_status=said.append)
    assert all(torch.isfinite(t).all() for t in learned(result).values())
    warned = "no bfloat16" in result.report
    assert warned == (name != NO_BACKWARD)


def test_tiny_models_prediction_on_the_device_is_the_cpus(tmp_path: Path) -> None:
    model, cpu = tiny.tiny_sdxl(), tiny.tiny_sdxl(device=torch.device("cpu"))
    prompt = tiny.tiny_clip().encode_from_tokens_scheduled(tiny.tiny_clip().tokenize("a dog"))
    x = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    got, want = (tiny.predict(m, x, 1.0, prompt) for m in (model, cpu))
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
