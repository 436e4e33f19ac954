"""The training model against stock ComfyUI: gates, columns, prediction types, checkpointing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.model_management
import comfy.patcher_extension
import comfy.sd
import pytest
import torch
from comfy.ldm.modules.attention import BasicTransformerBlock
from comfy.model_patcher import ModelPatcher
from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

from sandbox import tiny
from ziplora_core.comfy_adapter.model.pair_on_model import pair_on_model
from ziplora_core.comfy_adapter.model.targets import unet_targets
from ziplora_core.comfy_adapter.model.trainable_text_encoder import trainable_text_encoder
from ziplora_core.comfy_adapter.model.training_model import training_model
from ziplora_core.files.writer import kohya_tensors
from ziplora_core.lora.merged import MergedLoRA
from ziplora_core.training.branches import Gates

from .. import helpers

SIGMAS = (0.03, 0.5, 2.0, 14.6)


@pytest.fixture
def x() -> torch.Tensor:
    return helpers.noise(2, 4, 16, 16)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_denoise_gated_teacher_batch_equals_two_stock_runs(
    model: ModelPatcher, clip: comfy.sd.CLIP, x: torch.Tensor, sigma: float
) -> None:
    x = x * (1 + sigma**2) ** 0.5
    prompts, tensors = helpers.prompts(clip), helpers.lora_tensors()
    want = [
        tiny.predict(helpers.stock(model, (tensors[i], 1.0)), x[i : i + 1], sigma, prompts[i])
        for i in range(2)
    ]
    with training_model(model, helpers.branches_of(model, helpers.lora_pair())) as opened:
        with torch.no_grad():
            got = opened.denoise(
                x,
                torch.full((2,), sigma),
                helpers.prepared(opened, prompts, x),
                Gates(torch.eye(2), learned=False),
            )
        assert opened.evaluations == 2
    for i in range(2):
        assert helpers.relative(got[i : i + 1], want[i]) < 1e-4


def test_denoise_open_gates_equals_two_chained_stock_loaders(
    model: ModelPatcher, clip: comfy.sd.CLIP, x: torch.Tensor
) -> None:
    content, style = helpers.lora_tensors()
    prompt = helpers.encode(clip, "a photo of sks dog in watercolor style")
    chained = helpers.stock(model, (content, 0.8), (style, 1.2))
    want = tiny.predict(chained, x, 1.0, prompt)
    branches = helpers.branches_of(model, helpers.lora_pair(0.8, 1.2))
    with training_model(model, branches) as opened, torch.no_grad():
        conditioning = helpers.prepared(opened, (prompt, prompt), x)
        got = opened.denoise(x, torch.ones(2), conditioning, Gates())
    assert helpers.relative(got, want) < 1e-4


def test_denoise_folded_columns_equals_the_merged_lora_in_the_stock_loader(
    model: ModelPatcher, clip: comfy.sd.CLIP, x: torch.Tensor
) -> None:
    pair = helpers.lora_pair()
    pairs, _ = pair_on_model(pair, model.model)
    rng = torch.Generator().manual_seed(4)
    columns = {n: torch.rand(2, p.one.down.shape[1], generator=rng) * 2 for n, p in pairs.items()}
    merged = kohya_tensors(MergedLoRA(pairs, columns).modules())
    prompt = helpers.encode(clip, "a dog")
    want = tiny.predict(helpers.stock(model, (merged, 1.0)), x, 1.0, prompt)
    branches = helpers.branches_of(model, pair)
    targets = unet_targets(model.model)
    for name, column in columns.items():
        branches[targets[name]].fold(column)
    with training_model(model, branches) as opened, torch.no_grad():
        got = opened.denoise(
            x, torch.ones(2), helpers.prepared(opened, (prompt, prompt), x), Gates()
        )
    assert helpers.relative(got, want) < 1e-4


def discrete(sampling: str, zsnr: bool) -> ModelPatcher:
    """Return an eps checkpoint with the stock ModelSamplingDiscrete node on it."""
    return ModelSamplingDiscrete().patch(tiny.tiny_sdxl(), sampling, zsnr)[0]


@pytest.mark.parametrize(
    ("make", "v_prediction", "zsnr"),
    [
        (lambda: tiny.tiny_sdxl("eps"), False, False),
        (lambda: tiny.tiny_sdxl("v"), True, False),
        (lambda: tiny.tiny_sdxl("v", zsnr=True), True, True),
        (lambda: discrete("v_prediction", True), True, True),
        (lambda: discrete("eps", True), False, True),
    ],
)
def test_denoise_is_the_unets_own_output_at_both_ends_of_the_schedule(
    make: Callable[[], ModelPatcher], v_prediction: bool, zsnr: bool, clip: comfy.sd.CLIP
) -> None:
    model = make()
    prompt, sampling = helpers.encode(clip, "a dog"), model.get_model_object("model_sampling")
    assert float(sampling.sigma_max) > (4000 if zsnr else 14)
    for sigma in (sampling.sigma_min, sampling.sigma_max):
        sigma = sigma[None]
        x = helpers.noise(1, 4, 16, 16) * (1 + sigma**2) ** 0.5
        with training_model(model, {}) as opened, torch.no_grad():
            conditioning = helpers.prepared(opened, (prompt,), x)
            got = opened.denoise(x, sigma, conditioning, Gates())
            parts = {k: v.cond for k, v in conditioning[0].parts.items()}
            want = opened.model.diffusion_model(
                sampling.calculate_input(sigma, x),
                sampling.timestep(sigma).float(),
                context=parts["c_crossattn"],
                y=parts["y"],
            )
            assert opened.v_prediction == v_prediction
        assert helpers.relative(got, want) < 2e-4


def test_denoise_prompts_of_different_lengths_equal_each_alone(
    model: ModelPatcher, clip: comfy.sd.CLIP, x: torch.Tensor
) -> None:
    short, long = helpers.encode(clip, "a dog"), helpers.encode(clip, "a big red dog " * 30)
    longest = helpers.encode(clip, "a dog in the snow " * 80)
    assert [c[0][0].shape[1] for c in (short, long, longest)] == [77, 154, 462]
    for other in (long, longest):
        with training_model(model, {}) as opened, torch.no_grad():
            conditioning = helpers.prepared(opened, (short, other), x)
            assert conditioning[0].joins(conditioning[1]) == (other is long)
            got = opened.denoise(x, torch.ones(2), conditioning, Gates())
        for i, prompt in enumerate((short, other)):
            assert helpers.relative(got[i], tiny.predict(model, x, 1.0, prompt)[i]) < 1e-4


def gradient(model: ModelPatcher, clip: comfy.sd.CLIP, checkpointing: bool) -> tuple[Any, int]:
    """Return the gradients of all columns, and the bytes that autograd kept for backward."""
    x, kept = helpers.noise(2, 4, 16, 16), 0

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        kept += tensor.numel() * tensor.element_size()
        return tensor

    branches = helpers.branches_of(model, helpers.lora_pair())
    columns = {n: torch.ones(2, b.width, requires_grad=True) for n, b in branches.items()}
    with training_model(model, branches) as opened:
        opened.checkpointing = checkpointing
        conditioning = helpers.prepared(opened, helpers.prompts(clip), x)
        for name, column in columns.items():
            branches[name].fold(column)
        gates = Gates(torch.tensor([[1.0, 0.5], [-1.0, 1.0]]))
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
            loss = opened.denoise(x, torch.ones(2), conditioning, gates).square().mean()
        # Another prediction in between, as in a trainer with several forward passes.
        with torch.no_grad():
            opened.denoise(x, torch.ones(2), conditioning, Gates(torch.zeros(2, 2)))
        loss.backward()
    return {n: c.grad for n, c in columns.items()}, kept


def test_checkpointing_gives_equal_gradients_and_keeps_a_fraction(
    model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    plain, all_bytes = gradient(model, clip, checkpointing=False)
    saved, few_bytes = gradient(model, clip, checkpointing=True)
    assert len(plain) == 88
    for name, want in plain.items():
        assert want is not None and torch.count_nonzero(want) == want.numel()
        assert torch.equal(saved[name], want)
    assert few_bytes < 0.35 * all_bytes


def test_denoise_in_bfloat16_is_close_to_float32(
    model: ModelPatcher, clip: comfy.sd.CLIP, x: torch.Tensor
) -> None:
    predictions = []
    for dtype in (torch.float32, torch.bfloat16):
        branches = helpers.branches_of(model, helpers.lora_pair())
        with training_model(model, branches, dtype) as opened, torch.no_grad():
            conditioning = helpers.prepared(opened, helpers.prompts(clip), x)
            predictions.append(opened.denoise(x, torch.ones(2), conditioning, Gates()))
            assert opened.model.diffusion_model.out[2].weight.dtype == dtype
    full, half = predictions
    error = float((half - full).square().mean().sqrt() / full.square().mean().sqrt())
    assert half.dtype == torch.float32 and 0 < error < 0.03


@pytest.mark.parametrize("ending", [None, ValueError])
@pytest.mark.parametrize("before", [(False, False), (True, True)])
def test_comfyui_is_told_that_it_trains_and_afterwards_what_it_was_told_before(
    before: tuple[bool, bool], ending: type[Exception] | None, model: ModelPatcher,
    clip: comfy.sd.CLIP,
) -> None:  # fmt: skip
    """With `in_training` it chooses kernels that have a backward pass; the stock training node may
    have left `training_fp8_bwd` on."""
    management, seen = comfy.model_management, []

    def flags() -> tuple[bool, bool]:
        return management.in_training, management.training_fp8_bwd

    management.in_training, management.training_fp8_bwd = before
    try:
        with trainable_text_encoder(clip, {}):
            seen.append(flags())
            with training_model(model, {}):
                seen.append(flags())
                if ending is not None:
                    raise ending
            seen.append(flags())
    except ValueError:
        seen.append((True, False))
    finally:
        seen.append(flags())
        management.in_training = management.training_fp8_bwd = False
    assert seen == [(True, False)] * 3 + [before]


@pytest.mark.parametrize("ending", [None, ValueError, KeyboardInterrupt])
def test_training_model_leaves_the_persons_model_bit_identical(
    model: ModelPatcher, clip: comfy.sd.CLIP, x: torch.Tensor, ending: type[BaseException] | None
) -> None:
    prompt = helpers.encode(clip, "a dog")
    before = {k: w.clone() for k, w in model.model.state_dict().items()}
    base = tiny.predict(model, x, 1.0, prompt)
    blocks: list[Any] = []
    try:
        with training_model(model, helpers.branches_of(model, helpers.lora_pair())) as opened:
            blocks = [b for b in opened.model.modules() if isinstance(b, BasicTransformerBlock)]
            assert "forward" in blocks[0].__dict__ and opened.patcher.is_injected
            if ending is not None:
                raise ending
    except (ValueError, KeyboardInterrupt):
        pass
    assert blocks and not any("forward" in block.__dict__ for block in blocks)
    assert not any(m._forward_hooks for m in opened.model.modules())
    assert opened.patcher not in [m.model for m in comfy.model_management.current_loaded_models]
    helpers.assert_untouched(model, before)
    assert torch.equal(tiny.predict(model, x, 1.0, prompt), base)


def test_training_model_counts_stock_loras_on_the_model_as_its_base(
    model: ModelPatcher, clip: comfy.sd.CLIP, x: torch.Tensor
) -> None:
    patched = helpers.stock(model, (helpers.lora_tensors()[0], 0.7))
    prompt = helpers.encode(clip, "a dog")
    want = tiny.predict(patched, x, 1.0, prompt)
    with training_model(patched, {}) as opened, torch.no_grad():
        got = opened.denoise(
            x, torch.ones(2), helpers.prepared(opened, (prompt, prompt), x), Gates()
        )
    assert helpers.relative(got, want) < 1e-4
