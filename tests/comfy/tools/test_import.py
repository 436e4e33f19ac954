"""Import of old files: numbered modules are found by their shapes, or the file is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from comfy.model_patcher import ModelPatcher
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from sandbox import tiny
from sandbox.diffusers_reference import SGM_NAMES, diffusers_unet
from ziplora_core.comfy_adapter.model.targets import diffusers_shapes
from ziplora_core.comfy_adapter.tools.convert import import_lora
from ziplora_core.errors import ZipLoRAError
from ziplora_core.files import read_lora
from ziplora_core.files.numbered_modules import ORDERS, module_order
from ziplora_core.lora.factors import LoraFactors

Deltas = dict[str, Tensor]
ATTENTION, GEGLU, RESNET = {"Attention"}, {"GEGLU"}, {"ResnetBlock2D"}
SEED_ERA = "attn1, attn2"
VARIANTS = {
    SEED_ERA: ATTENTION,
    "attn1, ff, attn2": ATTENTION | GEGLU,
    "attn1, attn2, ff": ATTENTION | GEGLU,
    "attn1, ff, attn2 with ResNets": ATTENTION | GEGLU | RESNET,
    "attn1, attn2, ff with ResNets": ATTENTION | GEGLU | RESNET,
}
"""Our name of an order → the classes below which the trainer adapted linears and convolutions."""


def walk(net: nn.Module, classes: set[str]) -> Iterator[tuple[str, Any]]:
    """Return the trainer's modules: every linear, and with ResNets every convolution, below a
    module of these classes, both in the order of registration."""
    kinds = (nn.Linear, nn.Conv2d) if classes >= RESNET else nn.Linear
    for name, ancestor in net.named_modules():
        if type(ancestor).__name__ in classes:
            for below, module in ancestor.named_modules():
                if isinstance(module, kinds):
                    yield f"{name}.{below}", module


def register_as_in_2022(unet: UNet2DConditionModel) -> None:
    """Put `ff` between `attn1` and `attn2`, where diffusers once registered it."""
    for module in unet.modules():
        if type(module).__name__ == "BasicTransformerBlock":
            for name in ("attn1", "ff", "attn2"):
                module._modules[name] = module._modules.pop(name)


def trained(net: nn.Module, classes: set[str]) -> tuple[list[Tensor], Deltas]:
    """Train at random: the trainer's flat list up0, down0, … and the update of each module.

    The rank is one less in every other module.
    """
    generator = torch.Generator().manual_seed(0)
    parts, deltas = [], {}
    for i, (name, module) in enumerate(walk(net, classes)):
        out, width, *kernel = module.weight.shape
        rank = 4 - i % 2
        down = torch.randn(rank, width, *kernel, generator=generator)
        up = torch.randn(out, rank, *(1 for _ in kernel), generator=generator)
        parts += [up, down]
        deltas[name] = LoraFactors(down, up).delta()
    return parts, deltas


def numbered(parts: list[Tensor], network: str = "unet") -> dict[str, Tensor]:
    halves = ("up", "down")
    return {f"{network}:{i // 2}:{halves[i % 2]}": part for i, part in enumerate(parts)}


def save(path: Path, tensors: Mapping[str, Tensor], classes: set[str]) -> Path:
    metadata = {"unet": json.dumps(sorted(classes)), "<s1>": "<embed>"}
    safetensors.torch.save_file(dict(tensors), path, metadata)
    return path


def check(modules: Mapping[str, LoraFactors], deltas: Deltas) -> None:
    """Compare with the updates by diffusers name, for exactly the same modules."""
    sgm = {name: SGM_NAMES[f"{name}.weight"].removesuffix(".weight") for name in deltas}
    assert modules.keys() == {f"lora_unet_{path.replace('.', '_')}" for path in sgm.values()}
    for name, delta in deltas.items():
        got = modules[f"lora_unet_{sgm[name].replace('.', '_')}"].delta()
        assert torch.equal(got, delta), name


@pytest.fixture
def unet(model: ModelPatcher) -> UNet2DConditionModel:
    return diffusers_unet(model)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("order", VARIANTS)
def test_import_lora_numbered_modules_are_found_in_every_known_order(
    order: str, suffix: str, model: ModelPatcher, unet: UNet2DConditionModel, tmp_path: Path
) -> None:
    if "ff, attn2" in order:
        register_as_in_2022(unet)
    parts, deltas = trained(unet, VARIANTS[order])
    path = tmp_path / f"old{suffix}"
    if suffix == ".pt":
        torch.save([nn.Parameter(part) for part in parts], path)
    else:
        save(path, numbered(parts), VARIANTS[order])
    lora, modules = import_lora(path, model.model, "refuse")
    check(modules, deltas)
    assert lora.formats == ("cloneofsimo",)
    assert f"{len(deltas)} numbered modules in the order {order}" in lora.notes[0]
    assert "no alpha in file: scale 1" in lora.notes


def test_orders_are_those_of_the_test() -> None:
    assert ORDERS.keys() == VARIANTS.keys()


@pytest.mark.parametrize(
    ("order", "count"), [("attn1, attn2", 560), ("attn1, attn2, ff", 630),
                         ("attn1, attn2, ff with ResNets", 692)]
)  # fmt: skip
def test_module_order_is_the_walk_over_the_full_size_sdxl_of_diffusers(
    order: str, count: int
) -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(
            block_out_channels=[320, 640, 1280],
            down_block_types=["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
            up_block_types=["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
            transformer_layers_per_block=[1, 2, 10],
            attention_head_dim=[5, 10, 20],
            cross_attention_dim=2048,
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2816,
        )
    shapes = diffusers_shapes(tiny.sdxl_meta())
    found = module_order(shapes, ORDERS[order])
    assert found == [name for name, _ in walk(unet, VARIANTS[order])] and len(found) == count
    assert all(shapes[name] == tuple(unet.get_submodule(name).weight.shape) for name in found)


def test_import_lora_text_encoder_and_embeddings(
    model: ModelPatcher, clip: Any, unet: UNet2DConditionModel, tmp_path: Path
) -> None:
    from transformers import CLIPTextConfig, CLIPTextModel

    text = CLIPTextModel(
        CLIPTextConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=3,
                       num_attention_heads=2)
    )  # fmt: skip
    unet_parts, deltas = trained(unet, ATTENTION | GEGLU)
    parts, text_deltas = trained(text, {"CLIPAttention"})
    tensors = numbered(unet_parts) | numbered(parts, "text_encoder") | {"<s1>": torch.ones(32)}
    lora, modules = import_lora(
        save(tmp_path / "a.safetensors", tensors, GEGLU), model.model, "drop"
    )
    check({n: f for n, f in modules.items() if n.startswith("lora_unet_")}, deltas)
    got = {n: f.delta() for n, f in modules.items() if not n.startswith("lora_unet_")}
    assert len(got) == len(text_deltas) == 12
    for name, delta in text_deltas.items():
        path = name.removeprefix("text_model.").replace(".", "_")
        assert torch.equal(got[f"lora_te1_text_model_{path}"], delta), name
    assert "embeddings left out: <s1>" in lora.notes


def sd1_unet() -> UNet2DConditionModel:
    """SD 1.5's UNet, full size and without memory."""
    with torch.device("meta"):
        return UNet2DConditionModel(
            block_out_channels=[320, 640, 1280, 1280], cross_attention_dim=768
        )


@pytest.mark.parametrize(("width", "base"), [(768, "1.x"), (1024, "2.x")])
def test_import_lora_of_stable_diffusion_1_or_2_is_refused_by_name(
    width: int, base: str, model: ModelPatcher, tmp_path: Path
) -> None:
    parts = []
    for name, module in walk(sd1_unet(), ATTENTION | GEGLU):
        out, inner = module.weight.shape
        inner = width if "attn2.to_k" in name or "attn2.to_v" in name else inner
        parts += [torch.zeros(out, 1), torch.zeros(1, inner)]
    assert len(parts) == 2 * 144
    path = save(tmp_path / "sd.safetensors", numbered(parts), GEGLU)
    with pytest.raises(
        ZipLoRAError,
        match=rf"^sd.safetensors: found a Stable Diffusion {base} LoRA of the cloneofsimo trainer",
    ):
        import_lora(path, model.model, "refuse")


def test_import_lora_permuted_numbers_are_refused_with_the_count(
    model: ModelPatcher, unet: UNet2DConditionModel, tmp_path: Path
) -> None:
    parts, deltas = trained(unet, ATTENTION | GEGLU)
    first = next(i for i, name in enumerate(deltas) if name.endswith("ff.net.0.proj"))
    pairs = [parts[i : i + 2] for i in range(0, len(parts), 2)]
    pairs[first], pairs[0] = pairs[0], pairs[first]
    path = save(tmp_path / "p.safetensors", numbered([t for p in pairs for t in p]), GEGLU)
    count = len(deltas) - 2
    with pytest.raises(
        ZipLoRAError, match=rf"at best {count} of its {len(deltas)} numbered shapes"
    ):
        import_lora(path, model.model, "refuse")


def test_read_lora_without_a_model_advises_import_lora(
    unet: UNet2DConditionModel, tmp_path: Path
) -> None:
    parts, _ = trained(unet, ATTENTION)
    save(tmp_path / "a.safetensors", numbered(parts), ATTENTION)
    torch.save(parts, tmp_path / "a.pt")
    for suffix in ("safetensors", "pt"):
        with pytest.raises(
            ZipLoRAError, match=rf"^a.{suffix}, .*cloneofsimo trainer.*Read it with Import LoRA"
        ):
            read_lora(tmp_path / f"a.{suffix}")


def test_import_lora_unziplora_folder_file_resolves_every_module(
    model: ModelPatcher, unet: UNet2DConditionModel, tmp_path: Path
) -> None:
    """UnZipLoRA saves fp32 factors under a doubled prefix, without alpha."""
    parts, deltas = trained(unet, ATTENTION)
    tensors = {
        f"unet.unet.{name}.lora.{half}.weight": part
        for (name, half), part in zip(
            ((name, half) for name in deltas for half in ("up", "down")), parts, strict=True
        )
    }
    path = tmp_path / "pytorch_lora_weights.safetensors"
    safetensors.torch.save_file(tensors, path)
    lora, modules = import_lora(path, model.model, "refuse")
    check(modules, deltas)
    assert lora.formats == ("diffusers",)


@pytest.mark.parametrize(
    ("dtype", "limit"), [(torch.float32, 1e-5), (torch.float16, 5e-4), (torch.bfloat16, 4e-3)]
)
def test_import_lora_dense_ziplora_is_factored_to_its_rank(
    dtype: torch.dtype,
    limit: float,
    model: ModelPatcher,
    unet: UNet2DConditionModel,
    tmp_path: Path,
) -> None:
    """mkshing's file: every attention linear dense, of the sum of the two ranks."""
    generator = torch.Generator().manual_seed(1)
    deltas = {}
    for name, module in walk(unet, ATTENTION):
        out, width = module.weight.shape
        up, down = (torch.randn(*s, generator=generator) for s in ((out, 12), (12, width)))
        deltas[name] = 1e-3 * up @ down
    tensors = {f"unet.unet.{name}.lora.weight": d.to(dtype) for name, d in deltas.items()}
    path = tmp_path / "zip.safetensors"
    safetensors.torch.save_file(tensors, path)
    lora, modules = import_lora(path, model.model, "refuse")
    assert {f.rank for f in modules.values()} == {12} and len(modules) == 88
    assert lora.formats == ("diffusers", "dense ZipLoRA")
    for name, delta in deltas.items():
        sgm = SGM_NAMES[f"{name}.weight"].removesuffix(".weight").replace(".", "_")
        error = (modules[f"lora_unet_{sgm}"].delta() - delta).norm() / delta.norm()
        assert error <= limit, f"{name}: {error:.1e}"
