"""Modules that only one LoRA has, as in a pair of an attention-only LoRA and one of kohya's."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import comfy.sd
import pytest
import torch
from comfy.model_patcher import ModelPatcher

from ziplora_core.comfy_adapter.train.ziplora import train_ziplora
from ziplora_core.comfy_adapter.train.ziplora_inputs import Prompt
from ziplora_core.files import lora_from_tensors
from ziplora_core.lora.pair import LoRAPair
from ziplora_core.training.options import TrainingOptions
from ziplora_core.ziplora.options import ZipLoRASettings

from .. import helpers

EXTRA = "lora_unet_middle_block_1_transformer_blocks_0_ff_net_2"
SETTINGS = ZipLoRASettings(
    steps=2, width=64, height=64, calibration_states=2, options=TrainingOptions(held_out_draws=0)
)


@pytest.mark.parametrize("memory", ["fast", "low"])
@pytest.mark.parametrize("solver", ["adam", "closed_form", "closed_form_then_adam"])
def test_module_of_the_content_lora_alone_stays_in_every_solvers_merge(
    solver: str, memory: str, model: ModelPatcher, clip: comfy.sd.CLIP, tmp_path: Path
) -> None:
    content, style = helpers.lora_tensors()
    key = "diffusion_model.middle_block.1.transformer_blocks.0.ff.net.2.weight"
    out, inner = model.get_model_object(key).shape
    with torch.inference_mode():  # in which ComfyUI's loader nodes read the files
        extra = {
            f"{EXTRA}.lora_down.weight": 0.01 * torch.ones(4, inner),
            f"{EXTRA}.lora_up.weight": 0.01 * torch.ones(out, 4),
            f"{EXTRA}.alpha": torch.tensor(4.0),
        }
        pair = LoRAPair(
            lora_from_tensors({**content, **extra}, name="content.safetensors"),
            lora_from_tensors(style, name="style.safetensors"), 1.0, 1.0,
        )  # fmt: skip
        prompts = [
            Prompt(name, conditioning, {"samples": torch.ones(1, 4, 8, 8)})
            for name, conditioning in zip(("content", "style"), helpers.prompts(clip), strict=True)
        ]
        settings = replace(SETTINGS, solver=solver, memory=memory)
        result = train_ziplora(model, pair, prompts, settings, tmp_path)
    assert EXTRA not in result.merged.coefficients
    torch.testing.assert_close(
        result.merged.modules()[EXTRA].delta(), 0.01 * 0.01 * 4 * torch.ones(out, inner)
    )
