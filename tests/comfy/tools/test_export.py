"""All formats of Export LoRA, loaded by the programs that they are for."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import comfy.lora
import comfy.sd
import folder_paths
import peft
import pytest
import safetensors.torch
import torch
from comfy.model_patcher import ModelPatcher
from diffusers import UNet2DConditionModel
from diffusers.loaders import StableDiffusionXLLoraLoaderMixin
from safetensors import safe_open
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from sandbox.diffusers_reference import SGM_NAMES, diffusers_unet
from ziplora_core.comfy_adapter.model.targets import unet_targets
from ziplora_core.comfy_adapter.tools.convert import FORMATS, UNET_ONLY, import_lora, save_export
from ziplora_core.errors import ZipLoRAError
from ziplora_core.files import lora_from_tensors, read_lora
from ziplora_core.files.export import with_one_rank
from ziplora_core.files.writer import kohya_tensors, relative_error
from ziplora_core.lora.factors import LoRA, LoraFactors

Deltas = dict[str, Tensor]
SGM = {
    path.removesuffix(".weight"): f"lora_unet_{sgm.removesuffix('.weight').replace('.', '_')}"
    for path, sgm in SGM_NAMES.items()
    if not path.startswith("class_embedding.")  # an alias of add_embedding
}
"""kohya module names by diffusers path."""


def random_lora(model: ModelPatcher, clip: comfy.sd.CLIP, text_encoder: bool = True) -> LoRA:
    """A LoRA of every weight of the UNet and every linear of the text encoders' layers, with
    unequal ranks, and with alphas that are missing, unequal and negative."""
    generator = torch.Generator().manual_seed(0)
    weights = model.model.state_dict()
    shapes = {
        name: tuple(weights[key].shape)
        for name, key in unet_targets(model.model).items()
        if weights[key].ndim >= 2
    }
    if text_encoder:
        encoders = clip.cond_stage_model.state_dict()
        keys = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, {})
        shapes |= {
            name: tuple(encoders[key].shape)
            for name, key in keys.items()
            if name.startswith(("lora_te1_text_model_enc", "lora_te2_text_model_enc"))
            or name == "lora_te2_text_projection"
        }
    modules = {}
    for i, (name, (out, width, *kernel)) in enumerate(shapes.items()):
        rank = (4, 4, 2, 7)[i % 4] if name.startswith("lora_unet_") else (3, 5, 3)[i % 3]
        down = torch.randn(rank, width, *kernel, generator=generator)
        up = torch.randn(out, rank, *(1 for _ in kernel), generator=generator)
        modules[name] = LoraFactors(down, up, (None, 3.0, -1.5)[i % 3])
    return LoRA("random", modules)


@pytest.fixture
def lora(model: ModelPatcher, clip: comfy.sd.CLIP) -> LoRA:
    return random_lora(model, clip)


def check(found: Mapping[str, Tensor], lora: LoRA, prefixes: str | tuple[str, ...] = "") -> None:
    """Compare the updates of all modules of these networks."""
    expected = {n: f.delta() for n, f in lora.modules.items() if n.startswith(prefixes)}
    assert found.keys() == expected.keys() and expected
    for name, delta in expected.items():
        error = float((found[name].reshape(delta.shape) - delta).norm() / delta.norm())
        assert error <= 1e-5, f"{name}: relative error {error:.1e}"


def peft_updates(net: nn.Module, prefix: str = "") -> Deltas:
    """Return the update of each of PEFT's layers, by its path without a wrapper's prefix."""
    return {
        name.removeprefix(prefix): module.get_delta_weight(module.active_adapters[0]).detach()
        for name, module in net.named_modules()
        if hasattr(module, "get_delta_weight")
    }


def text_names(updates: Deltas, number: int) -> Deltas:
    """Name a text encoder's updates as kohya does."""
    return {
        f"lora_te{number}_"
        + ("" if path == "text_projection" else "text_model_")
        + path.removeprefix("text_model.").replace(".", "_"): update
        for path, update in updates.items()
    }


@pytest.fixture
def unet(model: ModelPatcher) -> UNet2DConditionModel:
    return diffusers_unet(model)


def text_encoders() -> tuple[nn.Module, nn.Module]:
    config = CLIPTextConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2,
        projection_dim=32,
    )  # fmt: skip
    return CLIPTextModel(config), CLIPTextModelWithProjection(config)


class Pipeline(StableDiffusionXLLoraLoaderMixin):
    """The part of diffusers' SDXL pipeline that loads LoRAs."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        self.unet = unet
        self.text_encoder, self.text_encoder_2 = text_encoders()
        self.components = {"unet": unet, "text_encoder": self.text_encoder,
                           "text_encoder_2": self.text_encoder_2}  # fmt: skip
        self.hf_device_map = None
        self.config = SimpleNamespace()


def test_diffusers_file_in_the_pipeline_has_every_update(
    lora: LoRA, unet: UNet2DConditionModel
) -> None:
    written, notes = save_export(lora, "a/x", "diffusers", "fp32", {})
    pipeline = Pipeline(unet)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pipeline.load_lora_weights(str(written.path))
    check({SGM[path]: d for path, d in peft_updates(unet).items()}, lora, "lora_unet_")
    check(text_names(peft_updates(pipeline.text_encoder), 1), lora, "lora_te1_")
    check(text_names(peft_updates(pipeline.text_encoder_2), 2), lora, "lora_te2_")
    assert notes == []


def test_diffusers_file_in_a_unet_alone_has_every_update(
    lora: LoRA, unet: UNet2DConditionModel
) -> None:
    written, _ = save_export(lora, "x", "diffusers", "fp32", {})
    with safe_open(written.path, "pt") as file:
        metadata = json.loads(file.metadata()["lora_adapter_metadata"])
    unet.load_lora_adapter(
        safetensors.torch.load_file(written.path), prefix="unet", metadata=metadata
    )
    check({SGM[path]: d for path, d in peft_updates(unet).items()}, lora, "lora_unet_")


def test_peft_folder_in_peft_has_every_update_of_the_unet(
    lora: LoRA, unet: UNet2DConditionModel
) -> None:
    written, notes = save_export(lora, "x", "peft", "fp32", {})
    loaded = peft.PeftModel.from_pretrained(unet, str(written.path.parent))
    updates = peft_updates(loaded, "base_model.model.")
    check({SGM[path]: d for path, d in updates.items()}, lora, "lora_unet_")
    assert notes == [f"{len(lora.text_encoder())} text-encoder modules are left out: the format "
                     "peft is for the UNet"]  # fmt: skip
    assert sorted(p.name for p in written.path.parent.iterdir()) == [
        "adapter_config.json", "adapter_model.safetensors"
    ]  # fmt: skip


@pytest.mark.parametrize("spelling", ["kohya", "comfy"])
def test_stock_loader_has_every_update_and_no_key_is_left_over(
    spelling: str,
    lora: LoRA,
    model: ModelPatcher,
    clip: comfy.sd.CLIP,
    caplog: pytest.LogCaptureFixture,
) -> None:
    written, _ = save_export(lora, "x", spelling, "fp32", {})
    file = safetensors.torch.load_file(written.path)
    key_map = comfy.lora.model_lora_keys_unet(model.model, {})
    key_map = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, key_map)
    patches = comfy.lora.load_lora(file, key_map)
    assert "lora key not loaded" not in caplog.text
    names = {key_map[name]: name for name in lora.modules}
    assert patches.keys() == names.keys()
    updates = {}
    for key, patch in patches.items():
        weight = torch.zeros(lora.modules[names[key]].delta().shape)
        updates[names[key]] = patch.calculate_weight(weight, key, 1.0, 1.0, None, lambda u: u)
    check(updates, lora)


@pytest.mark.parametrize(("dtype", "limit"), [("fp32", 1e-5), ("fp16", 1e-3), ("bf16", 1e-2)])
@pytest.mark.parametrize("spelling", FORMATS)
def test_export_read_again_and_imported_is_the_same_lora(
    spelling: str, dtype: str, limit: float, lora: LoRA, model: ModelPatcher
) -> None:
    written, _ = save_export(lora, "x", spelling, dtype, {"ss_steps": "7"})
    again, modules = import_lora(written.path, model.model, "refuse")
    expected = lora.unet() if spelling in UNET_ONLY else lora.modules
    assert modules.keys() == expected.keys()
    if spelling == "sliders":  # of one rank, and without a header
        expected, again = with_one_rank(expected), LoRA("", {}, {"ss_steps": "7"})
    worst = max(relative_error(modules[name], expected[name]) for name in expected)
    assert worst <= limit and written.error <= limit
    assert again.metadata["ss_steps"] == "7"


@pytest.mark.parametrize("spelling", FORMATS)
def test_imported_old_spelling_goes_through_every_format(
    spelling: str, lora: LoRA, model: ModelPatcher, tmp_path: Path
) -> None:
    """From old names to ours, to new names and back, every update stays the same."""
    tensors = {}
    for path, name in SGM.items():
        if name in lora.modules:
            factors = lora.modules[name]
            tensors[f"unet.unet.{path}.lora.down.weight"] = factors.down
            tensors[f"unet.unet.{path}.lora.up.weight"] = factors.scale * factors.up
    safetensors.torch.save_file(tensors, tmp_path / "old.safetensors")
    _, modules = import_lora(tmp_path / "old.safetensors", model.model, "refuse")
    ours = lora_from_tensors(kohya_tensors(modules))
    written, _ = save_export(ours, "x", spelling, "fp32", {})
    _, back = import_lora(written.path, model.model, "refuse")
    check({name: f.delta() for name, f in back.items()}, lora, "lora_unet_")


def test_exports_lie_outside_every_lora_folder_unless_stock_loaders_read_them(lora: LoRA) -> None:
    output = Path(folder_paths.get_output_directory())
    places = {
        spelling: save_export(lora, "sub/x", spelling, "fp16", {})[0].path.relative_to(output)
        for spelling in FORMATS
    }
    assert {spelling: str(path) for spelling, path in places.items()} == {
        "kohya": "loras/sub/x_00001_.safetensors",
        "comfy": "loras/sub/x_00002_.safetensors",
        "peft": "ziplora/exports/sub/x_00001_/adapter_model.safetensors",
        "diffusers": "ziplora/exports/sub/x_00002_.safetensors",
        "sliders": "loras/sub/x_alpha1.0_rank7_full_00001_.pt",
        "ziplora": "ziplora/exports/sub/x_00003_.safetensors",
    }


@pytest.mark.parametrize("spelling", FORMATS)
def test_export_never_overwrites_and_leaves_nothing_of_a_failure(
    spelling: str, model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    good = random_lora(model, clip, text_encoder=False)
    first = save_export(good, "x", spelling, "fp32", {})[0].path.read_bytes()
    factors = dict(good.modules)
    name = next(iter(factors))
    factors[name] = LoraFactors(factors[name].down, factors[name].up * 1e7)
    with pytest.raises(ZipLoRAError, match=r"found NaN or infinity in torch\.float16"):
        save_export(LoRA("bad", factors), "x", spelling, "fp16", {})
    second = save_export(good, "x", spelling, "fp32", {})[0].path
    assert second.read_bytes() != b"" and len(second.read_bytes()) == len(first)
    root = Path(folder_paths.get_output_directory()) / FORMATS[spelling]
    stem = "x_alpha1.0_rank7_full" if spelling == "sliders" else "x"
    assert sorted(p.stem for p in root.iterdir()) == [f"{stem}_00001_", f"{stem}_00002_"]


def test_peft_folder_whose_file_fails_is_removed(
    lora: LoRA, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ziplora_core.files import export

    def full_disk(*_args: Any) -> None:
        raise ZipLoRAError("disk full")

    monkeypatch.setattr(export, "write_checked", full_disk)
    with pytest.raises(ZipLoRAError, match="disk full"):
        save_export(lora, "x", "peft", "fp16", {})
    root = Path(folder_paths.get_output_directory()) / FORMATS["peft"]
    assert list(root.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["lora_unet_down_blocks_0_x", "lora_te1_text_model_final_layer_norm", "lora_te3_x"]
)
@pytest.mark.parametrize("spelling", ["comfy", "diffusers"])
def test_export_of_a_module_without_a_name_is_refused(spelling: str, name: str) -> None:
    factors = LoraFactors(torch.ones(1, 4), torch.ones(4, 1))
    with pytest.raises(ZipLoRAError, match=f"module {name}: found a module that other programs"):
        save_export(LoRA("x", {name: factors}), "x", spelling, "fp16", {})


def test_export_to_peft_of_text_encoders_alone_is_refused(lora: LoRA) -> None:
    with pytest.raises(ZipLoRAError, match=r"random: found text-encoder modules only.*diffusers"):
        save_export(LoRA("random", lora.text_encoder()), "x", "peft", "fp16", {})


def test_diffusers_file_without_its_metadata_has_the_scale_of_older_versions(lora: LoRA) -> None:
    """Versions before the header was read divide the most common rank by each module's own."""
    written, _ = save_export(lora, "x", "diffusers", "fp32", {})
    tensors = safetensors.torch.load_file(written.path)
    assert not any("alpha" in key for key in tensors)
    read = read_lora(written.path)
    alphas = {f.alpha for f in read.modules.values()}
    ranks = [f.rank for f in read.modules.values()]
    assert alphas == {float(max(set(ranks), key=ranks.count))}
