"""DreamBooth training on models of other families: flow matching, frames, their own file names."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from comfy.model_management import InterruptProcessingException

from sandbox import tiny
from sandbox.families import tiny_family, tiny_vae
from ziplora_core.comfy_adapter.model.family import family_of
from ziplora_core.comfy_adapter.model.targets import unet_targets
from ziplora_core.comfy_adapter.train.dreambooth import DreamBoothResult, train_dreambooth
from ziplora_core.comfy_adapter.train.dreambooth_inputs import TrainingInputs
from ziplora_core.dreambooth.options import DreamBoothSettings
from ziplora_core.errors import ZipLoRAError
from ziplora_core.files.writer import kohya_tensors
from ziplora_core.lora.layers import choose_layers
from ziplora_core.training.interface import ProgressCallbacks
from ziplora_core.training.options import TrainingOptions

from ..family_models import every_family, stock

SETTINGS = DreamBoothSettings(
    prompt="a photo of sks dog",
    rank=4,
    alpha=4.0,
    steps=10,
    learning_rate=3e-3,
    resolution=64,
    layers="attention_ff",
    options=TrainingOptions(held_out_draws=4, sample_every=10),
)


def train(family: str, folder: Path, callbacks: Any = None, **changed: Any) -> DreamBoothResult:
    pictures = torch.rand(2, 72, 64, 3, generator=torch.Generator().manual_seed(0))
    inputs = TrainingInputs(tiny_family(family), tiny.tiny_clip(), tiny_vae(family), [pictures])
    with torch.inference_mode():  # as in a node
        return train_dreambooth(
            inputs, replace(SETTINGS, **changed), folder, callbacks or ProgressCallbacks()
        )


@every_family
def test_training_lowers_the_held_out_loss_and_gives_a_lora_of_the_family(
    family: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    if family == "Anima":
        with pytest.raises(ZipLoRAError, match="Anima, some of whose layers have no backward pass"):
            train(family, tmp_path)
        return
    samples: list[Any] = []
    callbacks = ProgressCallbacks(
        on_samples=lambda step, pictures, captions: samples.extend(pictures)
    )
    result = train(family, tmp_path, callbacks)
    model = tiny_family(family)
    weights = model.model.state_dict()
    kernels = [(name, weights[key].ndim - 2) for name, key in unet_targets(model.model).items()]
    assert {*result.modules} == {*choose_layers("attention_ff", kernels)}
    assert len(stock(model, kohya_tensors(result.modules)).patches) == len(result.modules)
    assert "not loaded" not in caplog.text
    assert [picture.shape[-1] for picture in samples] == [3] and samples[0].ndim == 3
    assert result.metadata["ss_base_model_version"] == family_of(model.model).version
    assert ("learning rate 1e-4" in result.report) == (family != "SD1.5")
    assert ("modelspec.prediction_type" in result.metadata) == (family == "SD1.5")
    found = re.search(
        r"loss on fixed noise, without → with the LoRA: ([\d.]+) → ([\d.]+)", result.report
    )
    assert found and float(found[2]) < float(found[1])


@pytest.mark.parametrize("family", ["Z-Image", "FLUX.1"])
def test_low_memory_learns_the_same_and_a_cancelled_training_goes_on_bit_for_bit(
    family: str, tmp_path: Path
) -> None:
    fast = train(family, tmp_path / "fast", memory="fast")
    low = train(family, tmp_path / "low", memory="low")
    for name, factors in fast.modules.items():
        torch.testing.assert_close(low.modules[name].up, factors.up, rtol=1e-3, atol=1e-6)

    def cancel(record: Any) -> None:
        if record.step == 4:
            raise InterruptProcessingException

    with pytest.raises(InterruptProcessingException):
        train(family, tmp_path / "cut", ProgressCallbacks(on_step=cancel), memory="fast")
    resumed = train(family, tmp_path / "cut", memory="fast")
    assert resumed.record.resumed_at == 4
    assert all(torch.equal(resumed.modules[n].up, f.up) for n, f in fast.modules.items())
