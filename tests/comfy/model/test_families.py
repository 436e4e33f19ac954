"""Other families than SDXL's: every spelling of a LoRA, every merge, and what is refused."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import comfy.lora
import comfy.model_management
import comfy.sd
import pytest
import safetensors.torch
import torch
from comfy.model_patcher import ModelPatcher

from sandbox.families import FAMILIES, conditioning, tiny_family
from ziplora_core.comfy_adapter.model.family import family_of
from ziplora_core.comfy_adapter.model.fused import key_of, rows_of
from ziplora_core.comfy_adapter.model.pair_on_model import merge_pair
from ziplora_core.comfy_adapter.model.targets import resolve_unet, unet_targets
from ziplora_core.comfy_adapter.tools.calibration import CalibrationPrompts, calibrate
from ziplora_core.comfy_adapter.train.ziplora import train_ziplora
from ziplora_core.comfy_adapter.train.ziplora_inputs import Prompt
from ziplora_core.errors import ZipLoRAError
from ziplora_core.files import lora_from_tensors, read_lora
from ziplora_core.files.merge_file import merged_from_lora, merged_metadata
from ziplora_core.files.metadata import lora_metadata
from ziplora_core.files.writer import kohya_tensors, write_lora
from ziplora_core.lora.blocks import PRESETS
from ziplora_core.lora.merged import MergedLoRA
from ziplora_core.lora.pair import LoRAPair
from ziplora_core.merging import CALIBRATED, METHODS, MergeSettings
from ziplora_core.training.options import TrainingOptions
from ziplora_core.ziplora.options import ZipLoRASettings

from ..family_models import (
    SIDE,
    StateDict,
    every_family,
    far,
    make_lora,
    make_pair,
    predict,
    spelled,
    stock,
)

PREFIXES = (
    *("lora_unet_", "lora_transformer_", "lycoris_"),
    *("diffusion_model.", "transformer.", "unet.", ""),
)
ALL_NAMES = {"lora_unet_", "lycoris_", "diffusion_model.", "transformer.", ""}
SPELLINGS = {
    "SD1.5": {"lora_unet_", "lycoris_", "diffusion_model.", "unet.", ""},
    "FLUX.1": {*ALL_NAMES, "lora_transformer_"},
    "Chroma": {*ALL_NAMES, "lora_transformer_"},
    "Z-Image": ALL_NAMES,
    "Qwen-Image": ALL_NAMES,
    "Krea 2": ALL_NAMES,
    "Anima": {"lora_unet_", "diffusion_model."},
    "Wan 2.1": {"lora_unet_", "diffusion_model."},
}
"""The prefixes of names that ComfyUI knows for each family."""
SMALL = ZipLoRASettings(
    width=SIDE, height=SIDE, calibration_states=9, options=TrainingOptions(held_out_draws=4)
)


def prompts_of(family: str) -> list[Prompt]:
    return [Prompt(n, conditioning(family, i)) for i, n in enumerate(("content", "style", "joint"))]


def learn(model: ModelPatcher, pair: LoRAPair, family: str, tmp_path: Path, **settings: Any) -> Any:
    with torch.inference_mode():  # as in a node
        return train_ziplora(model, pair, prompts_of(family), replace(SMALL, **settings), tmp_path)


def one_spelling(model: ModelPatcher, prefix: str) -> tuple[StateDict, set[str]]:
    """A LoRA of every linear that ComfyUI's key map names with a prefix; and these weights."""
    linears, weights = {*unet_targets(model.model).values()}, model.model.state_dict()
    generator = torch.Generator().manual_seed(1)
    tensors: StateDict = {}
    taken: dict[str, list[range]] = defaultdict(list)
    for name, target in comfy.lora.model_lora_keys_unet(model.model, {}).items():
        key = key_of(target)
        if next(p for p in PREFIXES if name.startswith(p)) != prefix:
            continue
        if key not in linears or weights[key].ndim != 2:
            continue
        rows = rows_of(target, weights[key].shape[0])
        if any({*rows} & {*other} for other in taken[key]):
            continue  # a second name of the same rows
        taken[key].append(rows)
        down = torch.randn(2, weights[key].shape[1], generator=generator)
        tensors |= spelled(name, down, torch.randn(len(rows), 2, generator=generator), 1.0)
    return tensors, {*taken}


@pytest.mark.parametrize(
    ("family", "prefix"), [(name, p) for name in FAMILIES for p in sorted(SPELLINGS[name])]
)
def test_every_module_of_a_spelling_is_matched_as_the_stock_loader_does(
    family: str, prefix: str
) -> None:
    model = tiny_family(family)
    tensors, keys = one_spelling(model, prefix)
    found = resolve_unet(lora_from_tensors(tensors), model.model)
    targets, weights = unet_targets(model.model), model.model.state_dict()
    assert {targets[name] for name in found} == keys and len(keys) > 20
    patches = stock(model, tensors).patches
    for name, factors in found.items():
        key = targets[name]
        want = comfy.lora.calculate_weight(patches[key], weights[key].clone(), key) - weights[key]
        assert far(factors.delta(), want) < 1e-5, name


@every_family
def test_direct_merge_and_its_file_equal_the_two_loras_stacked_by_the_stock_loader(
    family: str, tmp_path: Path
) -> None:
    model = tiny_family(family)
    pair, tensors = make_pair(model)
    want = predict(stock(model, *tensors), family)
    assert far(predict(model, family), want) > 0.05
    merged, _ = merge_pair(model.model, pair, "direct", MergeSettings())
    path = save(merged, tmp_path)
    file = safetensors.torch.load_file(path)
    assert far(predict(stock(model, file), family), want) < 1e-5
    again = merged_from_lora(read_lora(path))
    assert again.separable
    assert far(predict(stock(model, kohya_tensors(again.modules())), family), want) < 1e-5
    content = kohya_tensors(again.modules(style_strength=0.0))
    assert (
        far(predict(stock(model, content), family), predict(stock(model, tensors[0]), family))
        < 1e-5
    )
    said = read_lora(path).metadata
    assert said["modelspec.architecture"] == f"{family_of(model.model).architecture}/lora"
    assert said["ss_base_model_version"] == family_of(model.model).version


def save(merged: MergedLoRA, folder: Path) -> Path:
    modules = merged.modules()
    metadata = lora_metadata(modules, title="m", description="", extra=merged_metadata(merged))
    return write_lora(folder / "m.safetensors", modules, metadata, "fp32").path


@every_family
def test_every_method_gives_a_file_that_the_stock_loader_takes_whole(
    family: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_family(family)
    pair, _ = make_pair(model, (4, 4))
    content, style, joint = (p.conditioning for p in prompts_of(family))
    with torch.inference_mode():
        prompts = CalibrationPrompts(content, style, joint, width=SIDE, height=SIDE)
        moments = calibrate(model, pair, prompts).moments
    for method in METHODS:
        settings = MergeSettings(moments=moments if method in CALIBRATED else {})
        merged, _ = merge_pair(model.model, pair, method, settings)
        path = save(merged, tmp_path)
        changed = stock(model, safetensors.torch.load_file(path))
        assert len(changed.patches) == len(merged.pairs), method
        path.unlink()
    assert "not loaded" not in caplog.text


@every_family
def test_closed_form_is_better_than_the_sum_on_held_out_samples(
    family: str, tmp_path: Path
) -> None:
    model = tiny_family(family)
    pair, _ = make_pair(model)
    before = {key: weight.clone() for key, weight in model.model.state_dict().items()}
    result = learn(model, pair, family, tmp_path)
    assert result.loss[-1] < 1
    after = model.model.state_dict()
    assert all(torch.equal(after[key], weight) for key, weight in before.items())
    live = predict(stock(model, kohya_tensors(result.merged.modules())), family)
    file = safetensors.torch.load_file(save(result.merged, tmp_path))
    assert far(predict(stock(model, file), family), live) < 1e-5


@every_family
def test_adam_lowers_the_loss_or_says_that_the_model_has_no_backward_pass(
    family: str, tmp_path: Path
) -> None:
    model = tiny_family(family)
    pair, _ = make_pair(model)
    settings = {"solver": "adam", "steps": 12, "learning_rate": 0.03, "similarity_weight": 0.0}
    if family == "Anima":
        with pytest.raises(ZipLoRAError, match="Anima, some of whose layers have no backward pass"):
            learn(model, pair, family, tmp_path, **settings)
        return
    result = learn(model, pair, family, tmp_path, **settings)
    assert result.record.step == 12
    before, after = retention(result.report)
    assert after < before


def retention(report: str) -> tuple[float, float]:
    """The error of the direct merge and of the learned one on held-out samples, from a report."""
    found = re.findall(r"content ([\d.]+) → ([\d.]+)", report)
    return float(found[0][0]), float(found[0][1])


def test_lora_of_another_family_is_refused_by_both_names() -> None:
    flux = make_pair(tiny_family("FLUX.1"))[0]
    with pytest.raises(
        ZipLoRAError, match=r"found a LoRA for FLUX\.1 .*expected a LoRA for Z-Image"
    ):
        merge_pair(tiny_family("Z-Image").model, flux, "direct", MergeSettings())


def test_presets_of_sdxls_blocks_are_refused_on_another_model() -> None:
    model = tiny_family("FLUX.1")
    settings = MergeSettings(blocks=PRESETS["b_lora"])
    with pytest.raises(ZipLoRAError, match=r"output_blocks.0.1.* such as double_blocks_0"):
        merge_pair(model.model, make_pair(model)[0], "block_masks", settings)
    one = MergeSettings(blocks={"double_blocks.0": (1.0, 0.0), "": (0.0, 1.0)})
    merged, _ = merge_pair(model.model, make_pair(model)[0], "block_masks", one)
    assert merged.pairs["lora_unet_double_blocks_0_img_attn_qkv"].style is None
    assert merged.pairs["lora_unet_double_blocks_1_img_attn_qkv"].content is None


def test_z_images_files_have_queries_keys_and_values_apart(tmp_path: Path) -> None:
    """As diffusers' network, and so ai-toolkit, has them; each with the ranks that it needs."""
    model = tiny_family("Z-Image")
    tensors = [
        one_spelling(model, "transformer.")[0],
        make_lora(model, 1, 4),
    ]
    loras = [lora_from_tensors(own) for own in tensors]
    merged, _ = merge_pair(model.model, LoRAPair(*loras), "direct", MergeSettings())
    written = read_lora(save(merged, tmp_path))
    stem = "diffusion_model.layers.0.attention"
    assert f"{stem}.qkv" not in written.modules
    assert [written.modules[f"{stem}.to_{end}"].rank for end in "qkv"] == [6, 6, 6]


def lokr(model: ModelPatcher, full: bool) -> StateDict:
    """A random LoKr of every query layer, with the network's own names."""
    generator, tensors = torch.Generator().manual_seed(1), {}
    for key, weight in model.model.state_dict().items():
        if not key.endswith(("attn.wq.weight", "attn.to_q.weight")):
            continue
        stem = key.removesuffix(".weight")
        out, width = weight.shape[0] // 4, weight.shape[1] // 4
        tensors[f"{stem}.lokr_w1"] = torch.randn(4, 4, generator=generator)
        if full:
            tensors[f"{stem}.lokr_w2"] = torch.randn(out, width, generator=generator) * 0.05
        else:
            tensors[f"{stem}.lokr_w2_a"] = torch.randn(out, 2, generator=generator) * 0.3
            tensors[f"{stem}.lokr_w2_b"] = torch.randn(2, width, generator=generator) * 0.3
        tensors[f"{stem}.alpha"] = torch.tensor(2.0)
    return tensors


@pytest.mark.parametrize("family", [name for name in ("Qwen-Image", "Krea 2") if name in FAMILIES])
def test_lokr_is_merged_exactly_or_refused_by_name(family: str) -> None:
    model = tiny_family(family)
    subject, style = lokr(model, full=False), make_lora(model, 1, 4)
    pair = LoRAPair(*(lora_from_tensors(tensors) for tensors in (subject, style)))
    merged, _ = merge_pair(model.model, pair, "direct", MergeSettings())
    want = predict(stock(model, subject, style), family)
    assert far(predict(stock(model, kohya_tensors(merged.modules())), family), want) < 1e-4
    assert far(predict(stock(model, style), family), want) > 1e-2
    with pytest.raises(ZipLoRAError, match="LoKr with an undecomposed lokr_w2"):
        lora_from_tensors(lokr(model, full=True), name="mine.safetensors")
