"""Files of the public UnZipLoRA are read by every loader node, with mergers folded in."""

from __future__ import annotations

from pathlib import Path

import comfy.sd
import pytest
import safetensors.torch
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from sandbox import tiny
from sandbox.diffusers_reference import SGM_NAMES, diffusers_unet
from ziplora_core.comfy_adapter.model.targets import resolve_unet
from ziplora_core.comfy_adapter.tools.unziplora_import import import_unziplora
from ziplora_core.errors import ZipLoRAError
from ziplora_core.files import read_lora
from ziplora_core.unziplora.objective import CONCEPTS

RANK = 4
LINEARS = ("to_q", "to_k", "to_v", "to_out.0")
Files = dict[str, Path]
Dense = dict[str, tuple[Tensor, Tensor]]


def official(model: ModelPatcher, folder: Path) -> tuple[Files, Files, dict[str, Dense]]:
    """Write what train_unziplora.py writes: `save_lora_weights` puts `unet.` before keys that have
    it already, hard masks are in `up`, mergers in a file of their own."""
    files, mergers, written = {}, {}, {}
    unet = diffusers_unet(model)
    for seed, concept in enumerate(CONCEPTS):
        generator = torch.Generator().manual_seed(seed)
        weights, merge, dense = {}, {}, {}
        for name, layer in unet.named_modules():
            if not ("attn" in name and name.endswith(LINEARS)):
                continue
            out, width = layer.weight.shape
            mask = torch.rand(out, generator=generator) < 0.3
            up = torch.randn(out, RANK, generator=generator) / RANK * mask[:, None]
            down = torch.randn(RANK, width, generator=generator) / RANK
            weights[f"unet.unet.{name}.lora.up.weight"] = up
            weights[f"unet.unet.{name}.lora.down.weight"] = down
            m = torch.rand(out, generator=generator)
            merge[f"unet.{name}.lora.merge_{concept}"] = torch.nn.Parameter(m)
            dense[SGM_NAMES[f"{name}.weight"]] = up @ down, m
        folder_of = folder / f"OUT_{concept}"
        folder_of.mkdir(parents=True)
        files[concept] = folder_of / "pytorch_lora_weights.safetensors"
        safetensors.torch.save_file(weights, files[concept])
        mergers[concept] = folder / f"OUT_merger_{concept}.pth"
        torch.save(merge, mergers[concept])
        written[concept] = dense
        assert len(weights) == 2 * 88
    return files, mergers, written


def sgm(key: str) -> str:
    return "lora_unet_" + key.removesuffix(".weight").replace(".", "_")


@pytest.mark.parametrize("fold_mergers", [True, False])
def test_official_files_are_read_whole_with_their_mergers(
    fold_mergers: bool, model: ModelPatcher, tmp_path: Path
) -> None:
    files, mergers, written = official(model, tmp_path)
    merged, read = import_unziplora(model.model, files, mergers if fold_mergers else {})
    assert [len(lora.modules) for lora in read] == [88, 88] and len(merged.pairs) == 88
    assert merged.prompt_separated
    for concept, halved in zip(CONCEPTS, ((1.0, 0.0), (0.0, 1.0)), strict=True):
        modules = merged.modules(*halved)
        for key, (update, m) in written[concept].items():
            want = m.detach()[:, None] * update if fold_mergers else update
            torch.testing.assert_close(modules[sgm(key)].delta(), want)


def test_single_official_file_is_an_ordinary_lora_without_its_mergers(
    model: ModelPatcher, clip: comfy.sd.CLIP, tmp_path: Path
) -> None:
    files, _, written = official(model, tmp_path)
    lora = read_lora(files["content"])
    assert lora.formats == ("diffusers",) and len(resolve_unet(lora, model.model)) == 88
    for name, factors in resolve_unet(lora, model.model).items():
        (update,) = (w for key, (w, _) in written["content"].items() if sgm(key) == name)
        torch.testing.assert_close(factors.delta(), update)


def test_mergers_of_another_file_are_refused(model: ModelPatcher, tmp_path: Path) -> None:
    files, mergers, _ = official(model, tmp_path)
    swapped = {"content": mergers["style"], "style": mergers["content"]}
    with pytest.raises(ZipLoRAError, match=r"OUT_merger_style\.pth: found a key unet.*merge_style"):
        import_unziplora(model.model, files, swapped)
    tensors = torch.load(mergers["content"])
    key, first = next(iter(tensors.items()))
    for changed, words in (
        ({k: t for k, t in tensors.items() if k != key}, "found 87 mergers for 88 modules"),
        ({**tensors, key: first[:-1].detach()}, "its output features"),
        ({**tensors, key: first.detach() * float("nan")}, "found NaN or infinity"),
        ([1, 2], "found a list"),
    ):
        torch.save(changed, mergers["content"])
        with pytest.raises(ZipLoRAError, match=words):
            import_unziplora(model.model, files, mergers)
    mergers["content"].write_bytes(b"not a file")
    with pytest.raises(ZipLoRAError, match="found an unreadable PyTorch file"):
        import_unziplora(model.model, files, mergers)


def test_code_in_a_merger_file_is_never_run(model: ModelPatcher, tmp_path: Path) -> None:
    files, mergers, _ = official(model, tmp_path)
    torch.save({"unet.x.lora.merge_content": print}, mergers["content"])
    with pytest.raises(ZipLoRAError, match="or one that contains code"):
        import_unziplora(model.model, files, mergers)


def test_text_encoder_part_is_refused(
    model: ModelPatcher, clip: comfy.sd.CLIP, tmp_path: Path
) -> None:
    path = tmp_path / "with_text.safetensors"
    safetensors.torch.save_file(tiny.make_lora(model, clip, text_encoder=True), path)
    with pytest.raises(ZipLoRAError, match=r"found \d+ text-encoder modules"):
        import_unziplora(model.model, dict.fromkeys(CONCEPTS, path), {})
