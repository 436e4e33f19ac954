"""Files of networks that torch.compile, data-parallel training or PEFT have wrapped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from ziplora_core.files import lora_from_tensors, read_lora
from ziplora_core.files.base_model import describe_base

BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"
SGM = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1"


LEAVES = ["to_q", "to_k"]


def nested(path: str, leaf: nn.Module) -> nn.Module:
    """Put a module under a dotted path."""
    for name in reversed(path.split(".")):
        parent = nn.Module()
        parent.add_module(name, leaf)
        leaf = parent
    return leaf


def network() -> nn.Module:
    """Two linears under the names of diffusers' UNet."""
    return nested(BLOCK, nn.ModuleDict({"to_q": nn.Linear(48, 64), "to_k": nn.Linear(48, 40)}))


def with_adapter(net: nn.Module) -> nn.Module:
    net = peft.get_peft_model(net, peft.LoraConfig(r=4, lora_alpha=4, target_modules=LEAVES))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return net


def updates(net: nn.Module) -> dict[str, Tensor]:
    """PEFT's own update of each of its layers, by the last part of the name."""
    return {
        name.rpartition(".")[2]: module.get_delta_weight("default").detach()
        for name, module in net.named_modules()
        if hasattr(module, "get_delta_weight")
    }


def lora_tensors(net: nn.Module) -> dict[str, Tensor]:
    return {key: t.detach().clone() for key, t in net.state_dict().items() if "lora_" in key}


def compiled_inside() -> nn.Module:
    """A network of which only a block is compiled, as trainers do region by region."""
    net = network()
    block = net.get_submodule(BLOCK.rpartition(".")[0])
    block.attn1 = torch.compile(block.attn1)
    return with_adapter(net)


def wrapped_kohya(net: nn.Module) -> dict[str, Tensor]:
    """sd-scripts' names of the compiled UNet's modules: the path with underscores."""
    flat = {}
    for key, tensor in lora_tensors(net).items():
        path, _, half = key.removesuffix(".default.weight").rpartition(".lora_")
        path = path.replace("base_model.model", "_orig_mod").replace(".", "_")
        flat[f"lora_unet_{path}.lora_{'down' if half == 'A' else 'up'}.weight"] = tensor
    return flat


WRAPPED: dict[str, Callable[[], tuple[nn.Module, Callable[[nn.Module], dict[str, Tensor]]]]] = {
    "PEFT on a compiled network": lambda: (with_adapter(torch.compile(network())), lora_tensors),
    "a compiled PEFT network": lambda: (torch.compile(with_adapter(network())), lora_tensors),
    "data-parallel": lambda: (nn.DataParallel(with_adapter(network())), lora_tensors),
    "data-parallel inside": lambda: (with_adapter(nn.DataParallel(network())), lora_tensors),
    "a compiled block": lambda: (compiled_inside(), lora_tensors),
    "sd-scripts on a compiled network": lambda: (with_adapter(network()), wrapped_kohya),
}


@pytest.mark.parametrize("case", WRAPPED)
def test_lora_of_a_wrapped_network_has_the_update_of_peft(case: str, tmp_path: Path) -> None:
    net, tensors_of = WRAPPED[case]()
    expected = updates(net)
    safetensors.torch.save_file(tensors_of(net), tmp_path / "x.safetensors")
    lora = read_lora(tmp_path / "x.safetensors")
    name = f"lora_unet_{BLOCK.replace('.', '_')}"
    assert set(lora.modules) == {f"{name}_to_q", f"{name}_to_k"} and len(expected) == 2
    for leaf, delta in expected.items():
        torch.testing.assert_close(lora.modules[f"{name}_{leaf}"].delta(), delta)


def test_peft_folder_of_a_compiled_network_has_the_scale_of_its_config(tmp_path: Path) -> None:
    net = torch.compile(network())
    config = peft.LoraConfig(r=4, lora_alpha=3, alpha_pattern={"to_k": 9}, target_modules=LEAVES)
    net = peft.get_peft_model(net, config)
    nn.init.normal_(
        net.get_parameter(f"base_model.model._orig_mod.{BLOCK}.to_q.lora_B.default.weight")
    )
    nn.init.normal_(
        net.get_parameter(f"base_model.model._orig_mod.{BLOCK}.to_k.lora_B.default.weight")
    )
    net.save_pretrained(tmp_path)
    lora = read_lora(tmp_path / "adapter_model.safetensors")
    for leaf, delta in updates(net).items():
        found = lora.modules[f"lora_unet_{BLOCK.replace('.', '_')}_{leaf}"]
        torch.testing.assert_close(found.delta(), delta)


STEMS = [
    "unet._orig_mod.{}", "_orig_mod.unet.{}", "module.unet.{}", "unet.module._orig_mod.{}",
    "base_model.model._orig_mod.{}", "unet.base_model.model.{}", "base_model.model.unet.{}",
]  # fmt: skip


@pytest.mark.parametrize("stem", STEMS)
def test_every_order_of_prefixes_names_one_module(stem: str) -> None:
    path = f"{stem.format(BLOCK)}.to_q"
    pair = {f"{path}.lora_A.weight": torch.ones(1, 4), f"{path}.lora_B.weight": torch.ones(4, 1)}
    assert list(lora_from_tensors(pair).modules) == [f"lora_unet_{BLOCK.replace('.', '_')}_to_q"]
    path = "module.diffusion_model._orig_mod.input_blocks.4.1.transformer_blocks.0.attn1.to_q"
    native = {f"{path}.{key.rpartition('to_q.')[2]}": tensor for key, tensor in pair.items()}
    assert list(lora_from_tensors(native).modules) == [f"{SGM}_to_q"]


@pytest.mark.parametrize("inside", ["", "_orig_mod."])
def test_base_of_a_wrapped_network_is_recognised(inside: str) -> None:
    stem = f"module.down_blocks.0.{inside}attentions.0.transformer_blocks.0.attn2.to_k"
    assert describe_base({f"{stem}.lora_A.weight": (4, 768)}).name == "Stable Diffusion 1.x"


@pytest.mark.parametrize(
    ("kind", "width", "number"),
    [(CLIPTextModel, 768, 1), (CLIPTextModelWithProjection, 1280, 2)],
    ids=["CLIP-L", "bigG"],
)
def test_peft_folder_of_one_text_encoder_has_the_update_of_peft(
    kind: type[nn.Module], width: int, number: int, tmp_path: Path
) -> None:
    """The folder names no network: the width of SDXL's two text encoders tells them apart."""
    config = CLIPTextConfig(
        hidden_size=width, intermediate_size=64, num_hidden_layers=1, num_attention_heads=4,
        vocab_size=16, projection_dim=width,
    )  # fmt: skip
    targets = ["q_proj", "out_proj", "fc1"]
    net = peft.get_peft_model(
        kind(config), peft.LoraConfig(r=2, lora_alpha=6, target_modules=targets)
    )
    for name, parameter in net.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter)
    net.save_pretrained(tmp_path)
    lora = read_lora(tmp_path / "adapter_model.safetensors")
    layer = f"lora_te{number}_text_model_encoder_layers_0"
    names = {leaf: f"{layer}_{'mlp' if leaf == 'fc1' else 'self_attn'}_{leaf}" for leaf in targets}
    assert set(lora.modules) == set(names.values()) and lora.formats == ("PEFT",)
    for leaf, delta in updates(net).items():
        torch.testing.assert_close(lora.modules[names[leaf]].delta(), delta)
        assert lora.modules[names[leaf]].scale == 3
