"""All spellings against ComfyUI's own key map of the real SDXL and its stock loader."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import comfy.lora
import comfy.sd
import comfy.utils
import pytest
import safetensors.torch
import torch
from comfy.model_patcher import ModelPatcher
from comfy_extras import nodes_lora_extract, nodes_train
from torch import Tensor

from sandbox import tiny
from ziplora_core.errors import ZipLoRAError
from ziplora_core.files import lora_from_tensors, read_lora
from ziplora_core.lora.factors import LoraFactors

Shapes = dict[str, tuple[int, ...]]
Stem = Callable[[str, str], str]


def flat(name: str) -> str:
    return name.replace(".", "_")


def processor(name: str) -> str:
    """Name an attention linear inside a processor: `attn1.to_out.0` → `attn1.processor.to_out`."""
    return name.replace(".to_out.0", ".to_out").replace(".to_", ".processor.to_")


HALVES = ("lora_down.weight", "lora_up.weight"), ("lora_A.weight", "lora_B.weight")
KOHYA, PEFT = ((f".{down}", f".{up}") for down, up in HALVES)
DOTTED = (".lora.down.weight", ".lora.up.weight")
OLD = ("_lora.down.weight", "_lora.up.weight")

STYLES: dict[str, tuple[Stem, tuple[str, str]]] = {
    "1 kohya": (lambda sgm, _: f"lora_unet_{flat(sgm)}", KOHYA),
    "2 kohya, diffusers names": (lambda _, dif: f"lora_unet_{flat(dif)}", KOHYA),
    "3 TrainLoRA": (lambda sgm, _: f"diffusion_model.{sgm}", KOHYA),
    "5 OneTrainer COMFY": (lambda sgm, _: f"diffusion_model.{sgm}", PEFT),
    "6 OneTrainer ORIGINAL": (lambda sgm, _: sgm, PEFT),
    "7 OMI": (lambda sgm, _: f"unet.{sgm}", KOHYA),
    "8 attention processors": (lambda _, dif: f"unet.{processor(dif)}", OLD),
    "8 the oldest": (lambda _, dif: processor(dif), OLD),
    "9 training scripts": (lambda _, dif: f"unet.{dif}", DOTTED),
    "10 doubled prefix": (lambda _, dif: f"unet.unet.{dif}", DOTTED),
    "11 diffusers now": (lambda _, dif: f"unet.{dif}", PEFT),
    "12 save_lora_adapter": (lambda _, dif: dif, PEFT),
    "13 PEFT": (lambda _, dif: f"base_model.model.{dif}", PEFT),
    "13 PEFT UNet": (lambda _, dif: f"unet.base_model.model.{dif}", PEFT),
    "14 LyCORIS": (lambda _, dif: f"lycoris_{flat(dif)}", KOHYA),
    "14 LyCORIS, sgm names": (lambda sgm, _: f"lycoris_{flat(sgm)}", KOHYA),
}


@cache
def sdxl() -> tuple[dict[str, str], dict[str, str], Shapes]:
    """Return the full-size SDXL's key map, diffusers names by weight key, and weight shapes."""
    model = tiny.sdxl_meta()
    key_map = comfy.lora.model_lora_keys_unet(model, {})
    weights = {key: tuple(t.shape) for key, t in model.state_dict().items() if t.ndim >= 2}
    names = {
        f"diffusion_model.{key}": name.removesuffix(".weight")
        for name, key in comfy.utils.unet_to_diffusers(model.model_config.unet_config).items()
        if not name.startswith("class_embedding.")
    }
    return key_map, names, weights


def written(style: str, attention_only: bool) -> tuple[dict[str, Tensor], Shapes]:
    """Write a rank-1 LoRA of SDXL in one style, and return it with the shapes of its targets."""
    stem_of, (down_end, up_end) = STYLES[style]
    _, names, weights = sdxl()
    targets = tiny.attention_linears(tiny.sdxl_meta()) if attention_only else list(weights)
    tensors = {}
    for index, key in enumerate(targets):
        sgm = key.removeprefix("diffusion_model.").removesuffix(".weight")
        out, width, *kernel = weights[key]
        stem = stem_of(sgm, names[key])
        value = torch.full((1,) * len(weights[key]), 1.0 + index)
        tensors[stem + down_end] = value.expand(1, width, *kernel)
        tensors[stem + up_end] = -value.expand(out, 1, *(1 for _ in kernel))
    return tensors, {key: weights[key] for key in targets}


@pytest.mark.parametrize("attention_only", [True, False], ids=["attention", "all"])
@pytest.mark.parametrize("style", STYLES)
def test_every_style_resolves_every_module_of_sdxl(style: str, attention_only: bool) -> None:
    """560 of 560 attention linears and 794 of 794 modules, each with its own factors."""
    tensors, targets = written(style, attention_only)
    lora = lora_from_tensors(tensors)
    key_map = sdxl()[0]
    resolved = {key_map[name]: factors for name, factors in lora.modules.items()}
    assert len(lora.modules) == len(resolved) == (560 if attention_only else 794)
    assert resolved.keys() == targets.keys()
    assert lora.base == "SDXL"
    for index, (key, shape) in enumerate(targets.items()):
        factors = resolved[key]
        assert factors.up.shape[0] == shape[0] and factors.down.shape[1:] == shape[1:]
        assert factors.down.flatten()[0] == 1.0 + index
        assert factors.up.flatten()[-1] == -1.0 - index


CLIP_STYLES = {
    "lora_te1_{}": "clip_l",
    "lora_te_{}": "clip_l",
    "text_encoder.{}": "clip_l",
    "text_encoders.clip_l.transformer.{}": "clip_l",
    "text_encoders.clip_l.{}": "clip_l",
    "clip_l.{}": "clip_l",
    "lora_te2_{}": "clip_g",
    "text_encoder_2.{}": "clip_g",
    "text_encoders.clip_g.transformer.{}": "clip_g",
    "text_encoders.clip_g.{}": "clip_g",
    "clip_g.{}": "clip_g",
}


@pytest.mark.parametrize("text_model", ["text_model.", ""])
@pytest.mark.parametrize(("style", "network"), CLIP_STYLES.items())
def test_every_style_resolves_every_linear_of_the_text_encoders(
    style: str, network: str, text_model: str
) -> None:
    parts = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj")
    key_map = comfy.lora.model_lora_keys_clip(tiny.tiny_clip().cond_stage_model, {})
    for part in (*parts, "mlp.fc1", "mlp.fc2"):
        path = f"{text_model}encoder.layers.1.{part}"
        stem = style.format(flat(path) if style.startswith("lora_") else path)
        pair = {
            f"{stem}.lora_A.weight": torch.ones(1, 4),
            f"{stem}.lora_B.weight": torch.ones(4, 1),
        }
        (name,) = lora_from_tensors(pair).modules
        assert key_map[name] == f"{network}.transformer.text_model.encoder.layers.1.{part}.weight"


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def hada(first: tuple[int, int], second: tuple[int, int]) -> dict[str, Tensor]:
    return {
        f"hada_w{i}_{p}": random(*s) + i for i in (1, 2) for p, s in (("a", first), ("b", second))
    }


LINEAR = "input_blocks.4.1.transformer_blocks.0.attn1.to_q"  # (64, 64) in the tiny SDXL
CONV = "input_blocks.4.0.in_layers.2"  # (64, 32, 3, 3)
STOCK: dict[str, tuple[str, dict[str, Tensor]]] = {
    "LoRA": (LINEAR, {"lora_down.weight": random(4, 64), "lora_up.weight": random(64, 4)}),
    "LoRA with four axes": (
        LINEAR,
        {"lora_down.weight": random(4, 64, 1, 1), "lora_up.weight": random(64, 4, 1, 1)},
    ),
    "LoCon": (
        CONV,
        {"lora_down.weight": random(4, 32, 3, 3), "lora_up.weight": random(64, 4, 1, 1)},
    ),
    "flat LoCon": (CONV, {"lora_down.weight": random(4, 288), "lora_up.weight": random(64, 4)}),
    "LoCon CP": (
        CONV,
        {
            "lora_down.weight": random(4, 32, 1, 1),
            "lora_mid.weight": random(4, 4, 3, 3),
            "lora_up.weight": random(64, 4, 1, 1),
        },
    ),
    "LoHa": (LINEAR, hada((64, 4), (4, 64))),
    "LoHa CP": (
        CONV,
        {
            **hada((4, 64), (4, 32)),
            "hada_t1": random(4, 4, 3, 3),
            "hada_t2": random(4, 4, 3, 3) * 2,
        },
    ),
    "LoKr": (
        LINEAR,
        {"lokr_w1": random(4, 4), "lokr_w2_a": random(16, 2), "lokr_w2_b": random(2, 16)},
    ),
    "LoKr decomposed": (
        LINEAR,
        {
            **{"lokr_w1_a": random(8, 2), "lokr_w1_b": random(2, 8)},
            **{"lokr_w2_a": random(8, 2), "lokr_w2_b": random(2, 8)},
        },
    ),
    "LoKr convolution": (
        CONV,
        {"lokr_w1": random(4, 4), "lokr_w2_a": random(16, 2), "lokr_w2_b": random(2, 72)},
    ),
}


@pytest.fixture
def key_map(model: ModelPatcher) -> dict[str, str]:
    """Return the weight keys of the tiny SDXL's UNet by module name."""
    return comfy.lora.model_lora_keys_unet(model.model, {})


def check(
    factors: Mapping[str, LoraFactors],
    file: Mapping[str, Tensor],
    model: ModelPatcher,
    key_map: Mapping[str, str],
) -> None:
    """Compare every module's dense update with the change of the weight by ComfyUI's loader."""
    patches = comfy.lora.load_lora(dict(file), dict(key_map))
    adapters = {key: patch for key, patch in patches.items() if not isinstance(patch, tuple)}
    assert {key_map[name] for name in factors} == adapters.keys() and adapters
    for name, found in factors.items():
        key = key_map[name]
        weight = torch.zeros_like(model.get_model_object(key))
        patch = adapters[key]
        expected = patch.calculate_weight(weight, key, 1.0, 1.0, None, lambda update: update)
        error = (found.delta().reshape(expected.shape) - expected).norm() / expected.norm()
        assert error < 1e-6, f"{name}: relative error {error:.1e}"


@pytest.mark.parametrize("alpha", [None, 3.0, -2.0])
@pytest.mark.parametrize("kind", STOCK)
def test_every_kind_has_the_update_of_the_stock_loader(
    model: ModelPatcher, key_map: dict[str, str], kind: str, alpha: float | None
) -> None:
    path, parts = STOCK[kind]
    file = {f"diffusion_model.{path}.{end}": tensor for end, tensor in parts.items()}
    if alpha is not None:
        file[f"diffusion_model.{path}.alpha"] = torch.tensor(alpha)
    check(lora_from_tensors(file).modules, file, model, key_map)


@pytest.mark.parametrize("algorithm", ["LoRA", "LoHa"])
def test_train_lora_and_save_lora_are_read(
    model: ModelPatcher, key_map: dict[str, str], tmp_path: Path, algorithm: str
) -> None:
    """Core training adapts every weight, with `diff` for norms and `diff_b` for biases."""
    trained, adapters = nodes_train._setup_lora_adapters(model, {}, algorithm, torch.float32, 2)
    generator = torch.Generator().manual_seed(0)
    for parameter in (p for adapter in adapters for p in adapter.parameters() if p.ndim):
        parameter.data = torch.randn(parameter.shape, generator=generator)
    file = {key: parameter.detach() for key, parameter in trained.items()}
    weights = [key for key, t in model.model.state_dict().items() if t.ndim > 1]
    extras = [key for key in file if key.endswith((".diff", ".diff_b"))]
    nodes_train.SaveLoRA.execute(file, "loras/trained")
    path = tmp_path / "output" / "loras" / "trained_00001_.safetensors"

    with pytest.raises(ZipLoRAError, match=rf"bias or norm tensors \({len(extras)} such keys\)"):
        read_lora(path)
    for lora in (read_lora(path, "drop"), lora_from_tensors(trained, bias_and_norm="drop")):
        assert f"{len(extras)} bias and norm tensors left out" in lora.notes
        assert len(lora.modules) == len(weights)
        check(lora.modules, file, model, key_map)


def test_lora_save_is_read(
    model: ModelPatcher,
    clip: comfy.sd.CLIP,
    key_map: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Extraction writes fp16 without alpha, and the text encoders under `text_encoders.`."""
    extract = nodes_lora_extract.extract_lora

    def extract_but_embeddings(diff: Tensor, rank: int) -> tuple[Tensor, Tensor]:
        if diff.shape[0] > 10_000:  # its full SVD takes minutes; the node leaves out what fails
            raise ValueError("the token embedding")
        return extract(diff, rank)

    monkeypatch.setattr(nodes_lora_extract, "extract_lora", extract_but_embeddings)
    nodes_lora_extract.LoraSave.execute("loras/extracted", 2, "standard", False, model, clip)
    path = tmp_path / "output" / "loras" / "extracted_00001_.safetensors"
    lora = read_lora(path)
    file = {key: tensor.float() for key, tensor in safetensors.torch.load_file(path).items()}
    check(lora.unet(), file, model, key_map)
    assert lora.notes == ("no alpha in file: scale 1",)
    clip_map = comfy.lora.model_lora_keys_clip(clip.cond_stage_model, {})
    linears = [name for name in lora.text_encoder() if "_encoder_layers_" in name]
    assert len(linears) == 36 and all(name in clip_map for name in linears)


def test_lora_save_of_full_differences_is_refused(model: ModelPatcher, tmp_path: Path) -> None:
    nodes_lora_extract.LoraSave.execute("loras/full", 2, "full_diff", False, model)
    with pytest.raises(ZipLoRAError, match=r"a full-weight difference of .* that is not low-rank"):
        read_lora(tmp_path / "output" / "loras" / "full_00001_.safetensors", "drop")
