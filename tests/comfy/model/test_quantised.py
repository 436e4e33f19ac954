"""Weights in ComfyUI's packed formats: LoRAs have the layers' shapes and train beside them."""

from __future__ import annotations

from pathlib import Path

import comfy.ops
import comfy.utils
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy.quant_ops import QUANT_ALGOS, QuantizedTensor
from torch import nn

from sandbox import tiny
from ziplora_core.comfy_adapter.model.targets import diffusers_shapes, resolve_unet, unet_targets
from ziplora_core.comfy_adapter.model.training_model import training_model
from ziplora_core.comfy_adapter.train.dreambooth import train_dreambooth
from ziplora_core.comfy_adapter.train.dreambooth_inputs import TrainingInputs
from ziplora_core.comfy_adapter.train.new_lora import layer_shapes
from ziplora_core.dreambooth.options import DreamBoothSettings
from ziplora_core.files import lora_from_tensors
from ziplora_core.files.writer import kohya_tensors
from ziplora_core.training.options import TrainingOptions

from .. import helpers

SINCE_0_27 = {"int8_tensorwise"}
FORMATS = ("nvfp4", "float8_e4m3fn", "mxfp8", *(SINCE_0_27 & QUANT_ALGOS.keys()))


def quantised(form: str) -> ModelPatcher:
    """Return the tiny SDXL with every linear in a packed format."""
    return pack(tiny.tiny_sdxl(), form)


def pack(model: ModelPatcher, form: str) -> ModelPatcher:
    """Put every linear into a packed format, which is unpacked for computing.

    The model has no file from which it could be loaded again.
    """
    layout = QUANT_ALGOS[form]["comfy_tensor_layout"]
    kind = comfy.ops.mixed_precision_ops({}, torch.float32, full_precision_mm=True).Linear
    layers = dict(model.model.named_modules())
    for name, layer in layers.items():
        if not isinstance(layer, nn.Linear) or not name.startswith("diffusion_model."):
            continue
        packed = kind(layer.in_features, layer.out_features, bias=False)
        packed.bias = layer.bias
        packed.weight = nn.Parameter(QuantizedTensor.from_float(layer.weight.data, layout), False)
        packed.layout_type, packed.quant_format = layout, form
        comfy.utils.set_attr(model.model, name, packed)
    model.cached_patcher_init = None
    return model


@pytest.mark.parametrize("form", FORMATS)
def test_shapes_are_those_of_the_layers_not_of_what_is_stored(form: str) -> None:
    plain, packed = tiny.tiny_sdxl(), quantised(form)
    targets = unet_targets(plain.model)
    assert unet_targets(packed.model) == targets
    assert diffusers_shapes(packed.model) == diffusers_shapes(plain.model)
    shapes = [layer_shapes(model, targets, "all", 4) for model in (plain, packed)]
    assert shapes[0] == shapes[1]
    lora = lora_from_tensors(helpers.lora_tensors()[0], name="content.safetensors")
    assert len(resolve_unet(lora, packed.model)) == 88


@pytest.mark.parametrize("form", FORMATS)
def test_lora_trained_on_packed_weights_fits_every_loader(form: str, tmp_path: Path) -> None:
    model = quantised(form)
    before = {key: weight.clone() for key, weight in model.model.state_dict().items()}
    picture = helpers.noise(1, 64, 64, 3, seed=1).sigmoid()
    inputs = TrainingInputs(model, tiny.tiny_clip(), tiny.tiny_vae(), [picture])
    settings = DreamBoothSettings(
        "a photo of sks dog", rank=4, steps=2, learning_rate=1e-2, resolution=64,
        options=TrainingOptions(sample_every=0, held_out_draws=0),
    )  # fmt: skip
    with torch.inference_mode():
        result = train_dreambooth(inputs, settings, tmp_path)
    helpers.assert_untouched(model, before)
    assert len(result.modules) == 88 and all(f.up.any() for f in result.modules.values())
    prompt, x = helpers.encode(tiny.tiny_clip(), "a dog"), helpers.noise(1, 4, 8, 8)
    plain = tiny.tiny_sdxl()
    patched = helpers.stock(plain, (kohya_tensors(result.modules), 1.0))
    moved = tiny.predict(patched, x, 1.0, prompt)
    assert torch.isfinite(moved).all() and not torch.equal(
        moved, tiny.predict(plain, x, 1.0, prompt)
    )


def test_casts_of_packed_weights_count_as_memory() -> None:
    with torch.inference_mode(False), training_model(quantised("nvfp4"), {}) as opened:
        network = opened.model.diffusion_model
        packed = [w for w in network.parameters() if isinstance(w.data, QuantizedTensor)]
        assert opened.cast_bytes == 4 * sum(w.numel() for w in packed) > 0
