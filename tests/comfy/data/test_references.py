"""Noisy samples: from reference latents, and from trajectories equal to the stock sampler's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.hooks
import comfy.sample
import comfy.sd
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from comfy_extras.nodes_model_advanced import ModelSamplingContinuousEDM, ModelSamplingDiscrete

from ziplora_core.comfy_adapter.data.references import (
    Reference,
    draw_pictures,
    noisy_samples,
    reference_latents,
)
from ziplora_core.comfy_adapter.model import conditioning as cond
from ziplora_core.comfy_adapter.model.training_model import TrainingModel, training_model
from ziplora_core.errors import ZipLoRAError
from ziplora_core.training.noisy_samples import TEACHERS
from ziplora_core.training.random import generator

from .. import helpers

SIZE = (4, 16, 16)


def references(
    opened: TrainingModel, clip: comfy.sd.CLIP, *latents: torch.Tensor | None
) -> list[Reference]:
    like = torch.zeros(1, *SIZE)
    return [
        Reference(
            teacher,
            cond.prepare(opened.model, prompt, like if latent is None else latent[:1]),
            cond.prepare(opened.model, cond.zeroed(prompt), like),
            latent,
        )
        for teacher, prompt, latent in zip(
            TEACHERS[:2], helpers.prompts(clip), latents, strict=True
        )
    ]


def test_trajectories_equal_the_stock_sampler_with_each_single_lora(
    model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    with training_model(model, helpers.branches_of(model, helpers.lora_pair())) as opened:
        given = references(opened, clip, None, None)
        states, complete = draw_pictures(opened, given, SIZE, 20, 5)
    assert [len(concept) for concept in states] == [25, 25]
    # `noise` as the pack draws it; everything else is ComfyUI's own sampling
    noise = torch.randn(SIZE, generator=generator(5, 2, 0))[None]
    for concept, reference, prompt, tensors in zip(
        states, complete, helpers.prompts(clip), helpers.lora_tensors(), strict=True
    ):
        seen: list[tuple[torch.Tensor, torch.Tensor]] = []

        def record(step: int, x0: Any, x: Any, total: int, seen: Any = seen) -> None:
            seen.append((x.clone(), x0.clone()))

        picture = comfy.sample.sample(
            helpers.stock(model, (tensors, 1.0)), noise, 25, 5.0, "euler", "normal",
            prompt, cond.zeroed(prompt), torch.zeros_like(noise), callback=record,
            disable_pbar=True, seed=0,
        )  # fmt: skip
        assert len(seen) == 25
        for state, (x, _) in zip(concept, seen, strict=True):
            assert helpers.relative(state.x, x[0]) < 1e-3
        assert all(s.target is not None and torch.isfinite(s.target).all() for s in concept)
        assert reference.latents is not None
        assert helpers.relative(reference.latents, model.model.process_latent_in(picture)) < 1e-3


@pytest.mark.thorough
@pytest.mark.parametrize("negative_strength", [0.0, 0.5])
def test_trajectories_equal_the_stock_sampler_with_hooks_on_the_two_prompts(
    negative_strength: float, model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    with training_model(model, helpers.branches_of(model, helpers.lora_pair())) as opened:
        given = references(opened, clip, None, None)
        _, complete = draw_pictures(opened, given, SIZE, 20, 5, negative_strength=negative_strength)
    noise = torch.randn(SIZE, generator=generator(5, 2, 0))[None]
    for reference, prompt, tensors in zip(
        complete, helpers.prompts(clip), helpers.lora_tensors(), strict=True
    ):
        prompts = [
            hooked(conditioning, tensors, strength)
            for conditioning, strength in (
                (prompt, 1.0), (cond.zeroed(prompt), negative_strength)
            )
        ]  # fmt: skip
        picture = comfy.sample.sample(
            model, noise, 25, 5.0, "euler", "normal", *prompts, torch.zeros_like(noise),
            disable_pbar=True, seed=0,
        )  # fmt: skip
        assert reference.latents is not None
        assert helpers.relative(reference.latents, model.model.process_latent_in(picture)) < 1e-3


def hooked(conditioning: Any, tensors: dict[str, torch.Tensor], strength: float) -> Any:
    """Let a LoRA act for one prompt, as stock Create Hook LoRA does."""
    hooks = comfy.hooks.create_hook_lora(tensors, strength, 0.0)
    return comfy.hooks.set_hooks_for_conditioning(conditioning, hooks)


def test_teacher_states_with_equal_sizes_share_noise_and_timesteps(
    model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    content, style = helpers.noise(3, *SIZE, seed=1), helpers.noise(1, *SIZE, seed=2)
    with training_model(model, helpers.branches_of(model, helpers.lora_pair())) as opened:
        given = references(opened, clip, content, style)
        c, s = (noisy_samples(opened, reference, 6, 5, 0) for reference in given)
        held_out = noisy_samples(opened, given[0], 6, 5, 1)
    for i in range(6):
        assert c[i].sigma == s[i].sigma
        noise = (c[i].x - content[i % 3]) / c[i].sigma
        torch.testing.assert_close(noise, (s[i].x - style[0]) / s[i].sigma, rtol=1e-3, atol=1e-3)
    assert not {float(state.sigma) for state in c} & {float(state.sigma) for state in held_out}


@pytest.mark.thorough
def test_teacher_states_of_different_sizes_keep_their_own(
    model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    with training_model(model, helpers.branches_of(model, helpers.lora_pair())) as opened:
        given = references(opened, clip, helpers.noise(1, 4, 8, 24), None)
        (drawn, style), complete = draw_pictures(opened, given, SIZE, 30, 0)
        content = noisy_samples(opened, complete[0], 3, 0)
    assert content[0].x.shape == (4, 8, 24) and style[0].x.shape == SIZE
    assert drawn == [] and len(content) == 3 and len(style) == 50
    assert complete[0] is given[0] and complete[1].latents is not None
    assert complete[1].latents.shape == (2, *SIZE)
    assert all(s.target is not None and s.target.shape == s.x.shape for s in content + style)


@pytest.mark.parametrize(
    "sampling",
    [
        lambda m: ModelSamplingDiscrete().patch(m, "lcm", False)[0],
        lambda m: ModelSamplingDiscrete().patch(m, "v_prediction", True)[0],
        lambda m: ModelSamplingContinuousEDM().patch(m, "edm_playground_v2.5", 80.0, 0.002)[0],
        lambda m: ModelSamplingContinuousEDM().patch(m, "v_prediction", 500.0, 0.03)[0],
    ],
)
def test_noised_states_take_the_models_own_schedule(
    sampling: Callable[[ModelPatcher], ModelPatcher], model: ModelPatcher, clip: comfy.sd.CLIP
) -> None:
    patched = sampling(model)
    sigmas = patched.get_model_object("model_sampling").sigmas
    with training_model(patched, helpers.branches_of(model, helpers.lora_pair())) as opened:
        given = references(opened, clip, helpers.noise(1, *SIZE), None)
        states = noisy_samples(opened, given[0], 32, 7)
    drawn = torch.stack([s.sigma for s in states])
    assert set(drawn.tolist()) <= set(sigmas.tolist())
    assert float(drawn.min()) <= float(sigmas[len(sigmas) // 16])
    assert float(drawn.max()) >= float(sigmas[-(len(sigmas) // 16)])
    assert all(s.target is not None and torch.isfinite(s.target).all() for s in states)


@pytest.mark.parametrize(
    ("latent", "found"),
    [
        ({"samples": torch.ones(1, 16, 8, 8)}, r"latents of shape \(1, 16, 8, 8\)"),
        ({"samples": torch.ones(1, 4, 2, 8, 8)}, "a video of 2 frames"),
        ({"samples": torch.zeros(1, 4, 8, 8)}, "an empty latent"),
        ({"samples": torch.full((1, 4, 8, 8), float("nan"))}, "NaN or infinity"),
        ({"samples": torch.ones(1, 4, 8, 8), "noise_mask": torch.ones(1, 8, 8)}, "a noise mask"),
    ],
)
def test_reference_latents_refuses_what_is_no_picture_of_this_model(
    latent: dict[str, torch.Tensor], found: str, model: ModelPatcher
) -> None:
    with pytest.raises(ZipLoRAError, match=f"style_latent: found .*{found}.*VAE Encode"):
        reference_latents(model.model, latent, "style_latent")


def test_reference_latents_are_scaled_into_the_models_space(model: ModelPatcher) -> None:
    samples = helpers.noise(2, 4, 8, 8)
    got = reference_latents(model.model, {"samples": samples}, "content_latent")
    torch.testing.assert_close(got, samples * 0.13025)
