"""Files for the public Concept Sliders and ZipLoRA, loaded as these programs load them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from comfy.model_patcher import ModelPatcher
from diffusers import UNet2DConditionModel
from safetensors import safe_open
from torch import Tensor, nn

from sandbox.diffusers_reference import SGM_NAMES, diffusers_unet
from ziplora_core.comfy_adapter.tools.convert import import_lora, save_export
from ziplora_core.lora.factors import LoRA, LoraFactors
from ziplora_core.lora.layers import choose_layers

SGM = {
    path.removesuffix(".weight"): f"lora_unet_{sgm.removesuffix('.weight').replace('.', '_')}"
    for path, sgm in SGM_NAMES.items()
    if path.endswith(".weight") and not path.startswith("class_embedding.")
}


@pytest.fixture
def unet(model: ModelPatcher) -> UNet2DConditionModel:
    return diffusers_unet(model)


def random_lora(unet: UNet2DConditionModel, layers: str) -> LoRA:
    """A LoRA of a layer choice, with unequal ranks and with alphas of all kinds."""
    generator = torch.Generator().manual_seed(0)
    shapes = {
        SGM[path]: tuple(module.weight.shape)
        for path, module in unet.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    }
    chosen = choose_layers(layers, [(name, len(s) - 2) for name, s in shapes.items()])
    modules = {}
    for i, name in enumerate(chosen):
        out, width, *kernel = shapes[name]
        rank = (4, 4, 2)[i % 3]
        down = torch.randn(rank, width, *kernel, generator=generator)
        up = torch.randn(out, rank, *(1 for _ in kernel), generator=generator)
        modules[name] = LoraFactors(down, up, (None, 3.0, -1.5, 0.0)[i % 4])
    return LoRA("random", modules)


class LoRAModule(nn.Module):
    """One module of the sliders' `lora.py`: its parameters, its buffer and its scale."""

    def __init__(self, layer: Any, rank: int, alpha: float) -> None:
        super().__init__()
        self.conv = isinstance(layer, nn.Conv2d)
        if self.conv:
            rank = min(rank, layer.in_channels, layer.out_channels)
            self.lora_down: nn.Module = nn.Conv2d(
                layer.in_channels, rank, layer.kernel_size, layer.stride, layer.padding, bias=False
            )
            self.lora_up: nn.Module = nn.Conv2d(rank, layer.out_channels, 1, bias=False)
        else:
            self.lora_down = nn.Linear(layer.in_features, rank, bias=False)
            self.lora_up = nn.Linear(rank, layer.out_features, bias=False)
        self.scale = alpha / rank
        self.register_buffer("alpha", torch.tensor(alpha))

    def forward(self, x: Tensor) -> Tensor:
        return self.lora_up(self.lora_down(x)) * self.scale


def slider_network(unet: UNet2DConditionModel, method: str, rank: int, alpha: float) -> nn.Module:
    """The sliders' `LoRANetwork`: `create_modules` of type c3lier, without the UNet itself."""
    network = nn.Module()
    parents = ["Attention", "ResnetBlock2D", "Downsample2D", "Upsample2D", "DownBlock2D"]
    for name, module in unet.named_modules():
        if method == "noxattn" and ("attn2" in name or "time_embed" in name):
            continue
        if method == "selfattn" and "attn1" not in name:
            continue
        if method in ("xattn", "xattn-strict") and "attn2" not in name:
            continue
        if module.__class__.__name__ in [*parents, "UpBlock2D"]:
            for child_name, child in module.named_modules():
                if method == "xattn-strict" and "out" in child_name:
                    continue
                if child.__class__.__name__ in ("Linear", "Conv2d"):
                    lora_name = f"lora_unet.{name}.{child_name}".replace(".", "_")
                    network.add_module(lora_name, LoRAModule(child, rank, alpha))
    return network


@pytest.mark.parametrize("layers", ["noxattn", "full", "xattn", "selfattn", "xattn_strict"])
def test_slider_file_loads_strictly_and_acts_as_the_lora(
    layers: str, unet: UNet2DConditionModel
) -> None:
    lora = random_lora(unet, layers)
    written, notes = save_export(lora, "sub/age", "sliders", "fp32", {})
    method = layers.replace("_", "-")
    name = written.path.name
    assert name == f"age_alpha1.0_rank4_{method}_00001_.pt" and written.error < 1e-6
    assert f"for LoRANetwork(unet, rank=4, alpha=1, train_method='{method}')" in notes

    rank = 4 if "rank4" in name else 8  # so the public scripts read a file's name
    network = slider_network(unet, method, rank, alpha=1.0)
    network.load_state_dict(torch.load(written.path))
    names = {f"lora_unet_{path.replace('.', '_')}": sgm for path, sgm in SGM.items()}
    found = dict(network.named_children())
    assert {names[kohya] for kohya in found} == lora.modules.keys()
    for kohya, module in found.items():
        factors = lora.modules[names[kohya]]
        impulses = torch.eye(factors.down[0].numel()).reshape(-1, *factors.down.shape[1:])
        if isinstance(module.lora_down, nn.Conv2d):
            module.lora_down.padding, module.lora_down.stride = (0, 0), (1, 1)
        delta = module(impulses).flatten(1).T.reshape(factors.delta().shape)
        torch.testing.assert_close(delta, factors.delta(), rtol=1e-4, atol=1e-4)


def test_slider_file_that_the_program_cannot_load_says_why(unet: UNet2DConditionModel) -> None:
    lora = random_lora(unet, "all_linear")
    text = LoraFactors(torch.ones(1, 4), torch.ones(4, 1))
    modules = {**lora.modules, "lora_te1_text_model_encoder_layers_0_mlp_fc1": text}
    written, notes = save_export(LoRA("x", modules), "x", "sliders", "fp16", {})
    assert notes[0].startswith("1 text-encoder modules are left out")
    assert notes[1].startswith("WARNING: the public Concept Sliders load a file only with all 626")
    assert "others" in notes[1] and written.path.suffix == ".pt"


def weights_of_ziplora(path: Path, unet: UNet2DConditionModel) -> dict[str, Tensor]:
    """Compute what the public ZipLoRA makes of a file: `get_lora_weights`, `merge_lora_weights`."""
    tensors = {}
    with safe_open(path, framework="pt", device="cpu") as f:
        for key in f.keys():  # noqa: SIM118
            tensors[key] = f.get_tensor(key)
    merged = {}
    for processor in unet.attn_processors:
        target = "unet.unet." + ".".join(processor.split(".")[:-1])
        for part in ("to_q", "to_k", "to_v", "to_out.0"):
            up, down = (tensors[f"{target}.{part}.lora.{half}.weight"] for half in ("up", "down"))
            merged[SGM[f"{target.removeprefix('unet.unet.')}.{part}"]] = up @ down
    return merged


def test_ziplora_file_has_the_update_of_every_attention_layer_without_an_alpha(
    unet: UNet2DConditionModel,
) -> None:
    lora = random_lora(unet, "attention")
    written, notes = save_export(lora, "x", "ziplora", "fp32", {})
    found = weights_of_ziplora(written.path, unet)
    assert found.keys() == lora.modules.keys() and len(found) == 88
    for name, delta in found.items():
        torch.testing.assert_close(delta, lora.modules[name].delta(), rtol=1e-5, atol=1e-5)
    assert notes == [
        "WARNING: the public ZipLoRA needs all 560 attention layers of SDXL, and stops where one "
        "is missing: this LoRA has 88"
    ]


def test_ziplora_file_of_a_wider_lora_says_what_the_program_does_not_read(
    unet: UNet2DConditionModel,
) -> None:
    lora = random_lora(unet, "attention_ff")
    written, notes = save_export(lora, "x", "ziplora", "fp32", {})
    assert len(weights_of_ziplora(written.path, unet)) == 88
    assert notes[-1] == "the public ZipLoRA does not read 22 modules outside of attention"


@pytest.mark.parametrize("spelling", ["sliders", "ziplora"])
def test_export_for_an_original_program_imports_again_as_the_same_lora(
    spelling: str, unet: UNet2DConditionModel, model: ModelPatcher
) -> None:
    lora = random_lora(unet, "noxattn")
    written, _ = save_export(lora, "x", spelling, "fp32", {})
    _, modules = import_lora(written.path, model.model, "refuse")
    assert modules.keys() == lora.modules.keys()
    for name, factors in modules.items():
        torch.testing.assert_close(
            factors.delta(), lora.modules[name].delta(), rtol=1e-4, atol=1e-4
        )
