"""Private copies: made in memory if necessary, refused if they would differ from the model."""

from __future__ import annotations

from collections.abc import Callable

import comfy.ops
import comfy.patcher_extension
import comfy.sd
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy_extras.nodes_freelunch import FreeU_V2
from comfy_extras.nodes_train import LoraModelLoader

from sandbox import tiny
from sandbox.tiny_pack.models import UNET_CONFIG, TinySDXL
from sandbox.tiny_weights import initialise_unet
from ziplora_core.comfy_adapter.model.private_copy import private_copy, refuse_patched
from ziplora_core.comfy_adapter.model.training_model import training_model
from ziplora_core.errors import ZipLoRAError
from ziplora_core.training.branches import Gates

from .. import helpers


@pytest.fixture
def x() -> torch.Tensor:
    return helpers.noise(2, 4, 16, 16)


def test_private_copy_without_a_reload_factory_is_made_in_memory(
    model: ModelPatcher, clip: comfy.sd.CLIP, x: torch.Tensor
) -> None:
    model.cached_patcher_init = None
    patched = helpers.stock(model, (helpers.lora_tensors()[0], 0.7))
    prompt = helpers.encode(clip, "a dog")
    before = {k: w.clone() for k, w in model.model.state_dict().items()}
    want = tiny.predict(patched, x, 1.0, prompt)  # it is now loaded and patched in place
    with training_model(patched, {}) as opened, torch.no_grad():
        assert opened.model is not model.model
        got = opened.denoise(
            x, torch.ones(2), helpers.prepared(opened, (prompt, prompt), x), Gates()
        )
    assert helpers.relative(got, want) < 1e-4
    helpers.assert_untouched(model, before)


class Dynamic(ModelPatcher):
    """A patcher that reports dynamic weights, as ModelPatcherDynamic does on an NVIDIA card."""

    def is_dynamic(self) -> bool:
        return True


def test_private_copy_of_a_dynamic_model_without_a_factory_is_refused(model: ModelPatcher) -> None:
    dynamic = Dynamic(model.model, model.load_device, model.offload_device)
    with pytest.raises(ZipLoRAError, match=r"model: found dynamically.*--disable-dynamic-vram"):
        private_copy(dynamic)


def with_wrapper(model: ModelPatcher) -> ModelPatcher:
    patched = model.clone()
    kind = comfy.patcher_extension.WrappersMP.APPLY_MODEL
    patched.add_wrapper_with_key(kind, "some_slider", lambda executor, *a, **k: executor(*a, **k))
    return patched


def with_function(model: ModelPatcher) -> ModelPatcher:
    patched = model.clone()
    patched.set_model_unet_function_wrapper(lambda apply, args: apply(args["input"]))
    return patched


@pytest.mark.parametrize(
    ("patch", "name"),
    [
        (lambda m: FreeU_V2.execute(m, 1.1, 1.2, 0.9, 0.2)[0], "patch output_block_patch"),
        (
            lambda m: LoraModelLoader.execute(m, helpers.lora_tensors()[0], 1.0, True)[0],
            "injection bypass_lora",
        ),
        (with_wrapper, "wrapper some_slider"),
        (with_function, "a model function wrapper"),
    ],
)
def test_refuse_patched_names_what_is_on_the_model(
    patch: Callable[[ModelPatcher], ModelPatcher], name: str, model: ModelPatcher
) -> None:
    with pytest.raises(ZipLoRAError, match=f"model: found .*{name}.*Connect the MODEL from before"):
        refuse_patched(patch(model))
    refuse_patched(model)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_fp8_weights_stay_fp8_and_train(checkpointing: bool, clip: comfy.sd.CLIP) -> None:
    model = tiny.tiny_sdxl(dtype=torch.float16)  # whose layers ComfyUI makes casting ones
    model.model.diffusion_model.to(torch.float8_e4m3fn)
    model.cached_patcher_init = None
    x = helpers.noise(2, 4, 16, 16)
    branches = helpers.branches_of(model, helpers.lora_pair())
    columns = {n: torch.ones(2, b.width, requires_grad=True) for n, b in branches.items()}
    with training_model(model, branches) as opened:
        opened.checkpointing = checkpointing
        assert opened.model.diffusion_model.out[2].weight.dtype == torch.float8_e4m3fn
        for name, column in columns.items():
            branches[name].fold(column)
        conditioning = helpers.prepared(opened, helpers.prompts(clip), x)
        opened.denoise(x, torch.ones(2), conditioning, Gates()).square().mean().backward()
    gradients = [c.grad for c in columns.values()]
    assert all(g is not None and torch.isfinite(g).all() and g.any() for g in gradients)


def test_teacher_and_student_compute_alike_where_comfyui_multiplies_in_fp8(
    clip: comfy.sd.CLIP,
) -> None:
    """`--fast fp8_matrix_mult` takes these layers; their products have no backward pass."""
    config = TinySDXL(UNET_CONFIG)
    config.set_inference_dtype(torch.float16, torch.float32)
    config.custom_operations = comfy.ops.fp8_ops
    cpu, x = torch.device("cpu"), helpers.noise(2, 4, 8, 8)
    base = config.get_model({}, device=cpu)
    initialise_unet(base.diffusion_model, 0.9, seed=0)
    base.diffusion_model.to(torch.float8_e4m3fn)
    model = ModelPatcher(base, load_device=cpu, offload_device=cpu)
    before = {key: weight.clone() for key, weight in base.state_dict().items()}
    branches = helpers.branches_of(model, helpers.lora_pair())
    with training_model(model, branches) as opened:
        conditioning = helpers.prepared(opened, helpers.prompts(clip), x)
        for branch in branches.values():
            branch.up.requires_grad_()
        student = opened.denoise(x, torch.ones(2), conditioning, Gates())
        with torch.no_grad():
            teacher = opened.denoise(x, torch.ones(2), conditioning, Gates())
    assert student.requires_grad and torch.equal(student.detach(), teacher)
    for key, weight in base.state_dict().items():
        assert torch.equal(weight.view(torch.uint8), before[key].view(torch.uint8))
