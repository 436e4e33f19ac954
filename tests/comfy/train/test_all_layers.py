"""LoRAs of every layer, convolutions and embeddings included, against the stock loader."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import comfy.sd
import pytest
import torch
from comfy.model_patcher import ModelPatcher

from sandbox import tiny
from ziplora_core.comfy_adapter.model.targets import unet_targets
from ziplora_core.comfy_adapter.model.training_model import training_model
from ziplora_core.comfy_adapter.train.ziplora import train_ziplora
from ziplora_core.comfy_adapter.train.ziplora_inputs import Prompt
from ziplora_core.files import lora_from_tensors
from ziplora_core.files.writer import kohya_tensors
from ziplora_core.lora.layers import LAYER_CHOICES
from ziplora_core.lora.pair import LoRAPair
from ziplora_core.training.branches import Gates
from ziplora_core.training.options import TrainingOptions
from ziplora_core.ziplora.options import ZipLoRASettings

from .. import helpers


def lora_of_every_layer(model: ModelPatcher, rank: int, seed: int) -> helpers.StateDict:
    """Return random factors for every matrix of the UNet, small enough for sane predictions."""
    rng = torch.Generator().manual_seed(seed)
    weights, tensors = model.model.state_dict(), {}
    for name, key in unet_targets(model.model).items():
        shape = weights[key].shape
        if len(shape) < 2:
            continue
        out, width, *kernel = shape
        ones = (1,) * len(kernel)
        gain = 0.05 * (width * torch.Size(kernel).numel()) ** -0.5
        tensors |= {
            f"{name}.lora_down.weight": torch.randn(rank, width, *kernel, generator=rng) * gain,
            f"{name}.lora_up.weight": torch.randn(out, rank, *ones, generator=rng),
            f"{name}.alpha": torch.tensor(2.0),
        }
    return tensors


@pytest.fixture
def tensors(model: ModelPatcher) -> list[helpers.StateDict]:
    return [lora_of_every_layer(model, rank, rank) for rank in (3, 2)]


@pytest.fixture
def pair(tensors: list[helpers.StateDict]) -> LoRAPair:
    return LoRAPair(*(lora_from_tensors(t) for t in tensors))


def test_denoise_with_branches_on_every_layer_equals_the_stock_loader(
    model: ModelPatcher, clip: comfy.sd.CLIP, tensors: list[helpers.StateDict], pair: LoRAPair
) -> None:
    x, prompt = helpers.noise(2, 4, 16, 16), helpers.encode(clip, "a dog")
    want = [
        tiny.predict(helpers.stock(model, (tensors[0], 1.0)), x[:1], 1.0, prompt),
        tiny.predict(
            helpers.stock(model, (tensors[0], 1.0), (tensors[1], 1.0)), x[1:], 1.0, prompt
        ),
    ]
    base = tiny.predict(model, x, 1.0, prompt)
    assert len(pair.content.modules) > 88 + 40
    with training_model(model, helpers.branches_of(model, pair)) as opened, torch.no_grad():
        conditioning = helpers.prepared(opened, (prompt, prompt), x)
        gates = Gates(torch.tensor([[1.0, 0.0], [1.0, 1.0]]))
        got = opened.denoise(x, torch.ones(2), conditioning, gates)
    assert helpers.relative(got, torch.cat(want)) < 1e-4
    assert helpers.relative(got, base) > 0.05


@pytest.mark.parametrize("layers", LAYER_CHOICES)
def test_optimise_every_layer_choice_is_the_stock_loaders_lora(
    layers: str, model: ModelPatcher, clip: comfy.sd.CLIP, pair: LoRAPair, tmp_path: Path
) -> None:
    prompt = helpers.encode(clip, "a dog")
    settings = ZipLoRASettings(
        solver="adam", steps=2, learning_rate=0.1, layers=layers, width=64, height=64, memory="low",
        options=TrainingOptions(held_out_draws=0),
    )  # fmt: skip
    latent = {"samples": helpers.noise(1, 4, 8, 8)}
    prompts = (Prompt("content", prompt, latent), Prompt("style", prompt, latent))
    merged = train_ziplora(model, pair, prompts, settings, tmp_path).merged
    moved = {name for name, m in merged.coefficients.items() if (m != 1).any()}
    assert moved == set(merged.coefficients)
    x = helpers.noise(1, 4, 8, 8)
    patched = helpers.stock(model, (kohya_tensors(merged.modules()), 1.0))
    want = tiny.predict(patched, x, 1.0, prompt)
    branches = helpers.branches_of(model, pair)
    targets = unet_targets(model.model)
    for name, columns in merged.coefficients.items():
        branches[targets[name]].fold(columns)
    with training_model(model, branches) as opened, torch.no_grad():
        conditioning = helpers.prepared(opened, (prompt,), x)
        got = opened.denoise(x, torch.ones(1), conditioning, Gates())
    assert helpers.relative(got, want) < 1e-4
    direct = replace(merged, coefficients={})
    assert set(direct.modules()) == set(merged.modules()) == set(pair.content.modules)
