"""A pruned LoRA equals the stock one at share 0, and an independent dense reference above."""

from __future__ import annotations

import comfy.lora
import numpy as np
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import CLIP
from torch import Tensor

from sandbox import tiny
from ziplora_core.comfy_adapter.apply.pruned import with_pruned_lora
from ziplora_core.comfy_adapter.tools.extract import two_unets
from ziplora_core.errors import ZipLoRAError
from ziplora_core.files import lora_from_tensors
from ziplora_core.lora.factors import LoRA

from ..helpers import encode, lora_tensors, noise, stock


@pytest.fixture
def lora() -> LoRA:
    return lora_from_tensors(lora_tensors()[0], name="content.safetensors")


def patched_weights(model: ModelPatcher) -> dict[str, Tensor]:
    """Return every patched weight as ComfyUI computes it before sampling."""
    weights = model.model.state_dict()
    return {
        key: comfy.lora.calculate_weight(patches, weights[key].clone(), key)
        for key, patches in model.patches.items()
    }


@pytest.mark.parametrize("strength", [1.0, -0.7])
def test_share_zero_is_the_stock_loader_bit_for_bit(
    strength: float, lora: LoRA, model: ModelPatcher, clip: CLIP
) -> None:
    ours, lines = with_pruned_lora(model, lora, 0.0, strength)
    theirs = stock(model, (lora_tensors()[0], strength))
    got, want = patched_weights(ours), patched_weights(theirs)
    assert got.keys() == want.keys() and len(got) == 88
    assert all(torch.equal(got[key], weight) for key, weight in want.items())
    assert "the smallest 0%" in lines[0] and not model.patches
    if strength == 1.0:
        x, prompt = noise(1, 4, 8, 8), encode(clip, "a photo of sks dog")
        assert torch.equal(tiny.predict(ours, x, 1.0, prompt), tiny.predict(theirs, x, 1.0, prompt))


@pytest.mark.parametrize("share", [0.8, 0.9, 1.0])
def test_share_above_zero_equals_a_dense_reference(
    share: float, lora: LoRA, model: ModelPatcher
) -> None:
    tensors = {key: t.double().numpy() for key, t in lora_tensors()[0].items()}
    weights = model.model.state_dict()
    got = patched_weights(with_pruned_lora(model, lora, share, 0.5)[0])
    for key, weight in got.items():
        name = "lora_unet_" + key[len("diffusion_model.") : -len(".weight")].replace(".", "_")
        down, up = (tensors[f"{name}.lora_{half}.weight"] for half in ("down", "up"))
        delta = tensors[f"{name}.alpha"] / len(down) * up @ down
        size = np.abs(delta)
        limit = np.sort(size, axis=None)[int(share * delta.size) - 1]
        got_delta = (weight.double() - weights[key].double()).numpy() / 0.5
        clear = np.abs(size - limit) > 1e-6  # at the threshold itself, float32 rounding decides
        assert (~clear).sum() < 10
        assert np.abs(got_delta - np.where(size > limit, delta, 0))[clear].max() < 1e-6


def test_patch_survives_being_handed_over_as_comfyui_does(lora: LoRA, model: ModelPatcher) -> None:
    """ComfyUI moves its weights into a new adapter of its class before a layer runs."""
    pruned, _ = with_pruned_lora(model, lora, 0.8, 1.0)
    key, ((_, adapter, *_),) = next(iter(pruned.patches.items()))
    moved = comfy.lora.prefetch_prepared_value(adapter, [0], None, None, False)
    weight = model.model.state_dict()[key]
    first, second = (
        a.calculate_weight(weight.clone(), key, 1.0, 1.0, None, lambda update: update)
        for a in (adapter, moved)
    )
    assert torch.equal(first, second) and not torch.equal(first, weight)


def test_pruned_model_is_never_made_into_a_lora(lora: LoRA, model: ModelPatcher) -> None:
    pruned, _ = with_pruned_lora(model, lora, 0.8, 1.0)
    with pytest.raises(ZipLoRAError, match=r"model_tuned: found a pruned LoRA on it"):
        two_unets(pruned, model, "attention")
    for share in (-0.1, 1.1):
        with pytest.raises(ZipLoRAError, match="prune: found"):
            with_pruned_lora(model, lora, share, 1.0)
    with pytest.raises(ZipLoRAError, match="text only: found no UNet modules"):
        with_pruned_lora(model, LoRA("text only", {}), 0.8, 1.0)
