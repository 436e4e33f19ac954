"""The scale of a module: alpha in the file, PEFT's configuration, or neither."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from ziplora_core.errors import ZipLoRAError
from ziplora_core.files import lora_from_tensors, read_lora
from ziplora_core.lora.factors import LoRA

PATHS = [
    "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q",
    "down_blocks.1.attentions.0.transformer_blocks.1.attn1.to_q",
    "mid_block.attentions.0.transformer_blocks.0.ff.net.2",
]
RANKS = (4, 8, 2)


def tensors(prefix: str, paths: list[str] = PATHS) -> dict[str, Tensor]:
    """LoRA factors of unequal ranks under PEFT's names."""
    return {
        f"{prefix}{path}.lora_{half}.weight": torch.ones(*shape)
        for path, rank in zip(paths, RANKS, strict=False)
        for half, shape in (("A", (rank, 6)), ("B", (6, rank)))
    }


def scales(lora: LoRA) -> list[float]:
    return [factors.scale for factors in lora.modules.values()]


def with_alpha(alpha: Any) -> LoRA:
    pair = {
        "lora_unet_x.lora_down.weight": torch.ones(4, 6),
        "lora_unet_x.lora_up.weight": torch.ones(6, 4),
    }
    return lora_from_tensors({**pair, "lora_unet_x.alpha": torch.as_tensor(alpha)})


@pytest.mark.parametrize(
    ("alpha", "scale"),
    [
        (torch.tensor(2.0), 0.5),
        (torch.tensor(2, dtype=torch.int64), 0.5),
        (torch.tensor([2.0]), 0.5),
        (torch.tensor([[2]], dtype=torch.int32), 0.5),
        (torch.tensor(2, dtype=torch.float16), 0.5),
        (torch.tensor(-4.0), -1.0),
    ],
)
def test_alpha_of_any_type_and_shape_over_rank(alpha: Tensor, scale: float) -> None:
    lora = with_alpha(alpha)
    assert scales(lora) == [scale] and lora.notes == ()


@pytest.mark.parametrize(
    ("alpha", "found"),
    [
        (math.nan, "alpha nan"),
        (math.inf, "alpha inf"),
        ([1.0, 2.0], r"a tensor of shape \[2\]"),
        (1j, "numbers of type torch.complex64"),
        ([], r"an empty tensor \[0\]"),
    ],
)
def test_alpha_that_is_no_scale_is_refused(alpha: Any, found: str) -> None:
    with pytest.raises(ZipLoRAError, match=f"key lora_unet_x.alpha: found {found}"):
        with_alpha(alpha)


@pytest.mark.parametrize("alpha", [0.0, 0, torch.zeros(1, dtype=torch.float16)])
def test_alpha_zero_switches_a_module_off_and_is_noted(alpha: Any) -> None:
    """So ComfyUI reads the file of a program that switches blocks off."""
    lora = with_alpha(alpha)
    assert scales(lora) == [0.0] and not lora.modules["lora_unet_x"].delta().any()
    assert lora.notes == ("alpha 0 in 1 of 1 modules: these are switched off",)


def test_alpha_missing_means_scale_one_and_a_note() -> None:
    lora = lora_from_tensors(tensors("unet."))
    assert scales(lora) == [1, 1, 1] and lora.notes == ("no alpha in file: scale 1",)


def test_alpha_missing_somewhere_is_counted() -> None:
    lora = lora_from_tensors({**tensors("unet."), f"unet.{PATHS[0]}.alpha": torch.tensor(2.0)})
    assert scales(lora) == [0.5, 1, 1]
    assert lora.notes == ("no alpha in file for 2 of 3 modules: scale 1",)


CONFIGS: dict[str, tuple[dict[str, Any], list[float]]] = {
    "plain": ({"r": 4, "lora_alpha": 8}, [2, 1, 4]),
    "rank stabilised": ({"lora_alpha": 8, "use_rslora": True}, [4, 8 / 8**0.5, 8 / 2**0.5]),
    "patterns": ({"lora_alpha": 8, "alpha_pattern": {"ff.net.2": 1, "to_q": 16}}, [4, 2, 0.5]),
    "first pattern wins": (
        {"lora_alpha": 8, "alpha_pattern": {"to_q": 4, "attn1.to_q": 1}},
        [1, 0.5, 4],
    ),
    "expression": ({"lora_alpha": 8, "alpha_pattern": {r".*\.0\.attn1\.to_[qk]": 2}}, [0.5, 1, 4]),
    "ends only": ({"lora_alpha": 8, "alpha_pattern": {"attn1": 1, "o_q": 1}}, [2, 1, 4]),
    "both": (
        {"lora_alpha": 8, "use_rslora": True, "alpha_pattern": {"to_q": 2}},
        [1, 2 / 8**0.5, 8 / 2**0.5],
    ),
    "off in a block": ({"lora_alpha": 8, "alpha_pattern": {"ff.net.2": 0}}, [2, 1, 0]),
    "without alpha": ({"r": 4}, [1, 1, 1]),
    "LoHa's word": ({"alpha": 8, "peft_type": "LOHA"}, [2, 1, 4]),
    "enum": ({"lora_alpha": 8, "peft_type": "PeftType.LORA", "init_lora_weights": True}, [2, 1, 4]),
}


@pytest.mark.parametrize(("config", "expected"), CONFIGS.values(), ids=CONFIGS)
def test_adapter_config_beside_a_peft_file_sets_the_scale(
    tmp_path: Path, config: dict[str, Any], expected: list[float]
) -> None:
    path = tmp_path / "adapter_model.safetensors"
    safetensors.torch.save_file(tensors("base_model.model."), path)
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    lora = read_lora(path)
    by_path = [lora.modules[f"lora_unet_{p.replace('.', '_')}"].scale for p in PATHS]
    assert by_path == pytest.approx(expected)
    assert "scale from adapter_model.safetensors, adapter_config.json" in lora.notes


def test_adapter_config_beside_another_program_file_is_not_its_own(tmp_path: Path) -> None:
    path = tmp_path / "style.safetensors"
    safetensors.torch.save_file(tensors("unet."), path)
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 8, "use_dora": true}')
    assert scales(read_lora(path)) == [1, 1, 1]


def test_adapter_metadata_sets_the_scale_of_each_network() -> None:
    config = {"unet.lora_alpha": 8, "unet.use_rslora": False, "text_encoder_2.lora_alpha": 2}
    layer = "text_model.encoder.layers.0.mlp.fc1"
    both = (
        tensors("unet.") | tensors("text_encoder.", [layer]) | tensors("text_encoder_2.", [layer])
    )
    lora = lora_from_tensors(both, {"lora_adapter_metadata": json.dumps(config)})
    assert scales(lora) == [2, 1, 4, 1, 0.5]
    assert "no alpha in file for 1 of 5 modules: scale 1" in lora.notes


def test_adapter_metadata_without_a_component_is_the_unets_and_wins_over_alpha() -> None:
    file = {**tensors(""), f"{PATHS[0]}.alpha": torch.tensor(1.0)}
    lora = lora_from_tensors(file, {"lora_adapter_metadata": '{"lora_alpha": 8}'})
    assert scales(lora) == [2, 1, 4]


REFUSED_FIELDS: dict[str, Any] = {
    "use_dora": True,
    "lora_bias": True,
    "bias": "all",
    "fan_in_fan_out": True,
    "modules_to_save": ["conv_in"],
    "trainable_token_indices": [1],
    "layer_replication": [[0, 4]],
    "target_parameters": ["weight"],
    "use_qalora": True,
    "use_bdlora": {"a": 1},
    "arrow_config": {"a": 1},
    "velora_config": {"a": 1},
    "kasa_config": {"a": 1},
    "monteclora_config": {"a": 1},
    "peft_type": "ADALORA",
    "init_lora_weights": "pissa_niter_4",
    "alpha_pattern": {"(": 1},
}


@pytest.mark.parametrize(("field", "value"), REFUSED_FIELDS.items())
def test_adapter_metadata_field_that_is_no_plain_lora_is_named(field: str, value: Any) -> None:
    metadata = {"lora_adapter_metadata": json.dumps({"unet.lora_alpha": 8, f"unet.{field}": value})}
    with pytest.raises(ZipLoRAError, match=f"lora_adapter_metadata, ({field}|alpha of)"):
        lora_from_tensors(tensors("unet."), metadata)


@pytest.mark.parametrize("start", ["olora", "corda", "loftq", "lora_ga", "PiSSA"])
def test_adapter_metadata_start_that_changed_the_base_is_named(start: str) -> None:
    metadata = {"lora_adapter_metadata": json.dumps({"init_lora_weights": start})}
    with pytest.raises(ZipLoRAError, match="init_lora_weights"):
        lora_from_tensors(tensors("unet."), metadata)


@pytest.mark.parametrize("text", ["{", "[1]", "[" * 100_000])
def test_adapter_metadata_that_is_damaged_is_refused(text: str) -> None:
    with pytest.raises(ZipLoRAError, match="LORA_MODEL, lora_adapter_metadata"):
        lora_from_tensors(tensors("unet."), {"lora_adapter_metadata": text})


@pytest.mark.parametrize("pattern", ["([a-z_0-9.]+)+!", "a+", "(a*)*", "(", "a{99}{99}"])
def test_adapter_metadata_pattern_that_could_run_for_ever_is_refused(pattern: str) -> None:
    fields = json.dumps({"unet.lora_alpha": 8, "unet.alpha_pattern": {pattern: 1}})
    with pytest.raises(ZipLoRAError, match="alpha_pattern: found"):
        lora_from_tensors(tensors("unet."), {"lora_adapter_metadata": fields})


def test_adapter_metadata_alpha_beyond_any_number_is_refused() -> None:
    text = f'{{"unet.lora_alpha": 1{"0" * 400}}}'
    with pytest.raises(ZipLoRAError, match="expected a finite alpha"):
        lora_from_tensors(tensors("unet."), {"lora_adapter_metadata": text})
