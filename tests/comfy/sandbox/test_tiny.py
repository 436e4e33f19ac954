"""The tiny SDXL is a real SDXL to ComfyUI's own loaders, and not a degenerate one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.sd
import pytest
import torch
from comfy.model_base import ModelType
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from sandbox import tiny
from sandbox.files import write_files

SIGMAS = (0.05, 0.3, 1.0, 3.0, 14.6)


def noisy(sigma: float) -> Tensor:
    noise = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    return noise * (1 + sigma**2) ** 0.5


def encode(clip: comfy.sd.CLIP, text: str) -> list[list[Any]]:
    return clip.encode_from_tokens_scheduled(clip.tokenize(text))


def rms(tensor: Tensor) -> float:
    return float(tensor.square().mean().sqrt())


def test_tiny_sdxl_has_88_attention_linears(model: ModelPatcher) -> None:
    assert len(tiny.attention_linears(model.model)) == 88


def test_sdxl_meta_has_560_attention_linears() -> None:
    assert len(tiny.attention_linears(tiny.sdxl_meta())) == 560


@pytest.mark.parametrize("prediction, low, high", [("eps", 0.8, 1.2), ("v", 0.2, 1.2)])
def test_predict_every_sigma_has_unit_scale(
    clip: comfy.sd.CLIP, prediction: tiny.Prediction, low: float, high: float
) -> None:
    model = tiny.tiny_sdxl(prediction)
    for sigma in SIGMAS:
        assert low < rms(tiny.predict(model, noisy(sigma), sigma, encode(clip, "a dog"))) < high


def test_predict_other_prompt_changes_prediction(model: ModelPatcher, clip: comfy.sd.CLIP) -> None:
    for sigma in SIGMAS:
        dog = tiny.predict(model, noisy(sigma), sigma, encode(clip, "a photo of a dog"))
        house = tiny.predict(model, noisy(sigma), sigma, encode(clip, "a house in watercolor"))
        assert rms(dog - house) > 0.08 * rms(dog)


@pytest.mark.parametrize("prediction", ["eps", "v"])
def test_make_lora_stock_loader_changes_prediction_by_effect(
    clip: comfy.sd.CLIP, prediction: tiny.Prediction
) -> None:
    model = tiny.tiny_sdxl(prediction)
    lora = tiny.make_lora(model, clip, seed=5, rank=4, alpha=2.0, effect=0.25)
    assert len(lora) == 3 * 88
    assert tiny.lora_effect(model, clip, lora) == pytest.approx(0.25, rel=0.05)


def test_make_lora_with_text_encoder_loads_without_leftovers(
    model: ModelPatcher, clip: comfy.sd.CLIP, caplog: pytest.LogCaptureFixture
) -> None:
    lora = tiny.make_lora(model, clip, text_encoder=True)
    patched, patched_clip = comfy.sd.load_lora_for_models(model, clip, lora, 1.0, 1.0)
    assert "lora key not loaded" not in caplog.text
    assert len(patched.patches) == 88
    assert len(patched_clip.patcher.patches) == 2 * 3 * 6
    assert rms(encode(patched_clip, "a dog")[0][0] - encode(clip, "a dog")[0][0]) > 0.01


def test_tiny_sdxl_force_deepcopy_is_private_and_equal(
    model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    private = model.clone(disable_dynamic=True, force_deepcopy=True)
    assert private.model is not model.model
    conditioning = encode(clip, "a dog")
    expected = tiny.predict(model, noisy(1.0), 1.0, conditioning)
    assert torch.equal(tiny.predict(private, noisy(1.0), 1.0, conditioning), expected)


def test_save_tiny_checkpoint_stock_loader_equals_in_process_model(
    tmp_path: Path, model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    tiny.save_tiny_checkpoint(tmp_path / "tiny.safetensors")
    loaded, loaded_clip, vae, _ = comfy.sd.load_checkpoint_guess_config(
        str(tmp_path / "tiny.safetensors")
    )
    conditioning = encode(loaded_clip, "a dog")
    assert torch.equal(conditioning[0][0], encode(clip, "a dog")[0][0])
    expected = tiny.predict(model, noisy(1.0), 1.0, conditioning)
    assert torch.equal(tiny.predict(loaded, noisy(1.0), 1.0, conditioning), expected)
    assert loaded.model.model_type == ModelType.EPS

    colours = torch.rand(1, 4, 4, 3, generator=torch.Generator().manual_seed(0)) * 0.6 + 0.2
    image = colours.repeat_interleave(8, 1).repeat_interleave(8, 2)
    torch.testing.assert_close(vae.decode(vae.encode(image)), image, atol=0.05, rtol=0)


@pytest.mark.parametrize("zsnr, sigma_max", [(False, 14.61), (True, 4518.8)])
def test_save_tiny_checkpoint_v_prediction_is_detected(
    tmp_path: Path, zsnr: bool, sigma_max: float
) -> None:
    tiny.save_tiny_checkpoint(tmp_path / "v.safetensors", "v", zsnr)
    model, *_ = comfy.sd.load_checkpoint_guess_config(str(tmp_path / "v.safetensors"))
    assert model.model.model_type == ModelType.V_PREDICTION
    assert float(model.model.model_sampling.sigma_max) == pytest.approx(sigma_max, rel=1e-3)


@pytest.mark.thorough
def test_write_files_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    written = []
    for name in ("first", "second"):
        for folder in ("checkpoints", "loras"):
            (tmp_path / name / folder).mkdir(parents=True)
        write_files(tmp_path / name)
        files = sorted((tmp_path / name).rglob("*.safetensors"))
        written.append([(file.name, file.read_bytes()) for file in files])
    assert len(written[0]) == 3
    assert written[0] == written[1]
