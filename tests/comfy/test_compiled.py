"""A MODEL through torch.compile is refused by name: PyTorch does not see hooks that change."""

from __future__ import annotations

import comfy.model_management
import comfy.sd
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy_extras.nodes_torch_compile import TorchCompileModel

from ziplora_core.comfy_adapter.concept_slider import with_slider
from ziplora_core.comfy_adapter.private_copy import refuse_patched
from ziplora_core.errors import ZipLoRAError
from ziplora_core.files import lora_from_tensors
from ziplora_core.lora import LoRA

from . import helpers


def slider() -> LoRA:
    return lora_from_tensors(helpers.lora_tensors()[1], name="slider.safetensors")


def test_hook_added_after_a_compiled_run_is_not_seen_by_pytorch() -> None:
    """Why: PyTorch's own behaviour. When this fails, the refusal can go."""
    layer = torch.nn.Linear(2, 2, bias=False)
    compiled = torch.compile(layer, backend="eager")
    x = torch.ones(1, 2)
    before = compiled(x)
    layer.register_forward_hook(lambda _layer, _inputs, out: out + 1)
    assert torch.equal(compiled(x), before) and not torch.equal(layer(x), before)


@pytest.mark.parametrize("scale", [0.0, 1.0])
def test_slider_on_a_compiled_model_is_refused_by_name(scale: float, model: ModelPatcher) -> None:
    compiled = TorchCompileModel.execute(model, "inductor").result[0]
    with pytest.raises(ZipLoRAError, match=r"through torch\.compile.*Load LoRA"):
        with_slider(compiled, slider(), scale)


def test_model_compiled_behind_a_slider_is_refused_when_it_draws(
    model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    patched, _ = with_slider(model, slider(), 1.0)
    compiled = TorchCompileModel.execute(patched, "inductor").result[0]
    with pytest.raises(ZipLoRAError, match=r"through torch\.compile"):
        comfy.model_management.load_models_gpu([compiled], force_full_load=True)
    compiled.eject_model()


def test_parts_compiled_by_other_packs_are_refused(model: ModelPatcher) -> None:
    clone = model.clone()
    key = "diffusion_model.middle_block.0"
    part = torch.compile(clone.get_model_object(key), backend="eager")
    clone.add_object_patch(key, part)
    with pytest.raises(ZipLoRAError, match=r"through torch\.compile"):
        with_slider(clone, slider(), 1.0)


def test_training_on_a_compiled_model_is_refused_by_name(model: ModelPatcher) -> None:
    compiled = TorchCompileModel.execute(model, "inductor").result[0]
    with pytest.raises(ZipLoRAError, match=r"wrapper torch\.compile"):
        refuse_patched(compiled)
