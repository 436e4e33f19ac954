"""Files written by the programs themselves: PEFT, diffusers and LyCORIS."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import diffusers
import peft
import pytest
import torch
from diffusers.loaders import StableDiffusionXLLoraLoaderMixin
from diffusers.utils import convert_state_dict_to_diffusers, convert_state_dict_to_kohya
from lycoris import modules
from peft.utils import get_peft_model_state_dict
from torch import Tensor, nn

from ziplora_core.errors import ZipLoRAError
from ziplora_core.files import lora_from_tensors, read_lora
from ziplora_core.lora.factors import LoRA

Deltas = dict[str, Tensor]


def check(lora: LoRA, expected: Mapping[str, Tensor]) -> None:
    """Compare every module's dense update with the writer's own."""
    assert lora.modules.keys() == expected.keys() and len(expected) > 0
    for name, delta in expected.items():
        found = lora.modules[name].delta().reshape(delta.shape)
        error = ((found - delta).norm() / delta.norm()).item()
        assert error < 1e-6, f"{name}: relative error {error:.1e}"


def randomise(module: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))


# --- PEFT -----------------------------------------------------------------------------------------


class Net(nn.Module):
    """A linear in a block, a linear beside it and a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.ModuleDict({"to_q": nn.Linear(48, 64), "to_k": nn.Linear(48, 40)})
        self.conv = nn.Conv2d(24, 40, 3)


LORA_CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {"lora_alpha": 3},
    "rank stabilised": {"lora_alpha": 3, "use_rslora": True},
    "patterns": {
        "rank_pattern": {"to_k": 2, "conv": 6},
        "alpha_pattern": {"block.to_q": 1, "conv": 9},
    },
    "both": {"use_rslora": True, "rank_pattern": {"to_k": 2}, "alpha_pattern": {".*k$": 5}},
}
TARGETS = ["to_q", "to_k", "conv"]


def adapted(config: Any) -> tuple[nn.Module, Deltas]:
    """Put PEFT's adapters on the net, and return it with the update of each module."""
    net = peft.get_peft_model(Net(), config)
    randomise(net)
    return net, {
        "lora_unet_"
        + name.removeprefix("base_model.model.").replace(".", "_"): module.get_delta_weight(
            "default"
        ).detach()
        for name, module in net.named_modules()
        if hasattr(module, "get_delta_weight")
    }


@pytest.mark.parametrize("extra", LORA_CONFIGS.values(), ids=LORA_CONFIGS)
def test_peft_folder_has_the_update_of_peft(tmp_path: Path, extra: dict[str, Any]) -> None:
    net, expected = adapted(peft.LoraConfig(r=4, target_modules=TARGETS, **extra))
    net.save_pretrained(tmp_path)
    lora = read_lora(tmp_path / "adapter_model.safetensors")
    check(lora, expected)
    assert lora.formats == ("PEFT",)


@pytest.mark.parametrize(
    "config",
    [
        peft.LoHaConfig(r=3, alpha=2, target_modules=TARGETS),
        peft.LoHaConfig(r=3, alpha=2, target_modules=TARGETS, use_effective_conv2d=True),
        peft.LoKrConfig(r=1, alpha=2, target_modules=TARGETS),
        peft.LoKrConfig(r=1, alpha=2, target_modules=TARGETS, decompose_both=True),
        peft.LoKrConfig(r=1, alpha=2, target_modules=TARGETS, use_effective_conv2d=True),
    ],
    ids=["LoHa", "LoHa CP", "LoKr", "LoKr decomposed", "LoKr CP"],
)
def test_peft_loha_and_lokr_have_the_update_of_peft(tmp_path: Path, config: Any) -> None:
    net, expected = adapted(config)
    net.save_pretrained(tmp_path)
    check(read_lora(tmp_path / "adapter_model.safetensors"), expected)


@pytest.mark.filterwarnings("ignore:Adapter 'default'")
@pytest.mark.parametrize("extra", [{"use_dora": True}, {"lora_bias": True}, {"bias": "all"}])
def test_peft_folder_that_is_no_plain_lora_is_refused(
    tmp_path: Path, extra: dict[str, Any]
) -> None:
    net, _ = adapted(peft.LoraConfig(r=4, target_modules=["to_q"], **extra))
    net.save_pretrained(tmp_path)
    with pytest.raises(ZipLoRAError, match=r"^adapter_model"):
        read_lora(tmp_path / "adapter_model.safetensors")


# --- diffusers ------------------------------------------------------------------------------------


@pytest.fixture
def unet() -> Any:
    """A tiny diffusers UNet with LoRAs of unequal rank and alpha on its attention and more."""
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(32, 64),
        layers_per_block=1,
        cross_attention_dim=32,
        attention_head_dim=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=8,
    )
    targets = ["to_q", "to_k", "to_out.0", "ff.net.2", "conv1", "proj_in"]
    patterns = {"rank_pattern": {"to_k": 2}, "alpha_pattern": {"attn1.to_q": 1, "conv1": 7}}
    unet.add_adapter(peft.LoraConfig(r=4, lora_alpha=6, target_modules=targets, **patterns))
    randomise(unet)
    return unet


def updates(unet: nn.Module, factor: float | None = None) -> Deltas:
    """Return the update of each module, or `factor` times up @ down."""
    deltas = {}
    for name, module in unet.named_modules():
        if hasattr(module, "get_delta_weight"):
            scale = 1.0 if factor is None else factor / module.scaling["default"]
            deltas[f"lora_unet_{name.replace('.', '_')}"] = scale * module.get_delta_weight(
                "default"
            )
    return {name: delta.detach() for name, delta in deltas.items()}


def test_diffusers_save_lora_adapter_has_its_update(tmp_path: Path, unet: Any) -> None:
    unet.save_lora_adapter(tmp_path)
    lora = read_lora(tmp_path / "pytorch_lora_weights.safetensors")
    check(lora, updates(unet))
    assert lora.notes == ("scale from pytorch_lora_weights.safetensors, lora_adapter_metadata",)


def layers(unet: Any) -> dict[str, Tensor]:
    return convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))


@pytest.mark.parametrize("with_metadata", [True, False])
def test_diffusers_save_lora_weights_has_its_update(
    tmp_path: Path, unet: Any, with_metadata: bool
) -> None:
    """Without the metadata, which older scripts leave out, alpha is lost and the scale is 1."""
    config = unet.peft_config["default"].to_dict()
    StableDiffusionXLLoraLoaderMixin.save_lora_weights(
        tmp_path, layers(unet), unet_lora_adapter_metadata=config if with_metadata else None
    )
    lora = read_lora(tmp_path / "pytorch_lora_weights.safetensors")
    check(lora, updates(unet, None if with_metadata else 1.0))
    assert set(lora.formats) == {"diffusers", "diffusers (PEFT)"}
    assert ("no alpha in file: scale 1" in lora.notes) is not with_metadata


def test_diffusers_convert_to_kohya_is_read_with_its_whole_number_alpha(unet: Any) -> None:
    file = convert_state_dict_to_kohya({f"unet.{key}": t for key, t in layers(unet).items()})
    assert {t.dtype for key, t in file.items() if key.endswith(".alpha")} == {torch.int64}
    check(lora_from_tensors(file), updates(unet, 1.0))


# --- LyCORIS --------------------------------------------------------------------------------------

LINEAR, CONV = nn.Linear(96, 64), nn.Conv2d(40, 64, 3)
READ: dict[str, tuple[type[nn.Module], dict[str, Any]]] = {
    "LoCon": (modules.LoConModule, {}),
    "LoCon CP": (modules.LoConModule, {"use_tucker": True}),
    "LoCon rank stabilised": (modules.LoConModule, {"rs_lora": True}),
    "LoCon with a scalar": (modules.LoConModule, {"use_scalar": True}),
    "LoHa": (modules.LohaModule, {}),
    "LoHa CP": (modules.LohaModule, {"use_tucker": True}),
    "LoKr": (modules.LokrModule, {"factor": 4}),
    "LoKr decomposed": (modules.LokrModule, {"decompose_both": True}),
    "LoKr CP": (modules.LokrModule, {"use_tucker": True, "factor": 4}),
}


def lycoris_file(
    kind: type[nn.Module], base: nn.Module, **options: Any
) -> tuple[Any, dict[str, Tensor]]:
    """Make one LyCORIS module with random factors, and the tensors it saves."""
    module = kind("lora_unet_x", base, **{"lora_dim": 3, "alpha": 2, **options})
    randomise(module)
    saved = module.custom_state_dict() or module.state_dict()
    return module, {f"lora_unet_x.{key}": tensor.detach() for key, tensor in saved.items()}


@torch.no_grad()
def forward_update(module: nn.Module, base: nn.Module) -> Tensor:
    """Return the update `(out, in, *k)` that the forward pass adds to a layer of zeros."""
    shape = base.weight.shape
    impulses = torch.eye(shape[1:].numel()).reshape(-1, *shape[1:])
    return module(impulses).flatten(1).T.reshape(shape)


@pytest.mark.parametrize("base", [LINEAR, CONV], ids=["linear", "conv"])
@pytest.mark.parametrize(("kind", "options"), READ.values(), ids=READ)
def test_lycoris_has_the_update_of_its_forward_pass(
    kind: type[nn.Module], options: dict[str, Any], base: nn.Module
) -> None:
    base = copy.deepcopy(base)
    for parameter in base.parameters():
        parameter.data.zero_()
    module, file = lycoris_file(kind, base, **options)
    check(lora_from_tensors(file), {"lora_unet_x": forward_update(module, base)})


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "full LoKr": ("LokrModule", {"full_matrix": True}, "LoKr with an undecomposed lokr_w2"),
    "DoRA": ("LoConModule", {"weight_decompose": True}, "DoRA"),
    "DoRA by input": ("LoConModule", {"weight_decompose": True, "wd_on_out": False}, "DoRA"),
    "LoHa DoRA": ("LohaModule", {"weight_decompose": True}, "DoRA"),
    "OFT": ("DiagOFTModule", {}, "OFT or BOFT"),
    "BOFT": ("ButterflyOFTModule", {"lora_dim": 4}, "OFT or BOFT"),
    "GLoRA": ("GLoRAModule", {}, "GLoRA"),
    "IA3": ("IA3Module", {}, "IA3"),
    "T-LoRA": ("TLoraModule", {}, "T-LoRA"),
}


@pytest.mark.parametrize(("kind", "options", "found"), REFUSED.values(), ids=REFUSED)
def test_lycoris_without_exact_factors_is_refused_by_name(
    kind: str, options: dict[str, Any], found: str
) -> None:
    _, file = lycoris_file(getattr(modules, kind), LINEAR, **options)
    with pytest.raises(ZipLoRAError, match=f"found {found} in 1 modules"):
        lora_from_tensors(file)


def test_lycoris_full_difference_that_is_not_low_rank_is_refused() -> None:
    _, file = lycoris_file(modules.FullModule, LINEAR)
    with pytest.raises(ZipLoRAError, match="found a full-weight difference of 64 x 96 that is not"):
        lora_from_tensors(file, bias_and_norm="drop")


def test_lycoris_norms_can_be_dropped() -> None:
    norm = modules.NormModule("lora_unet_norm", nn.GroupNorm(4, 8))
    norms = {f"lora_unet_norm.{key}": t.detach() for key, t in norm.state_dict().items()}
    _, file = lycoris_file(modules.LoConModule, LINEAR)
    with pytest.raises(ZipLoRAError, match=r"bias or norm tensors \(2 such keys\)"):
        lora_from_tensors(file | norms)
    lora = lora_from_tensors(file | norms, bias_and_norm="drop")
    assert "2 bias and norm tensors left out" in lora.notes
