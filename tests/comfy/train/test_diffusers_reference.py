"""The reference itself: diffusers' UNet equals ComfyUI's, and its step the formulas' gradient."""

from __future__ import annotations

import comfy.sd
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor
from torch.func import functional_call

from sandbox import tiny
from sandbox.diffusers_reference import diffusers_unet, noise_scheduler, reference_step
from ziplora_core.comfy_adapter.model.targets import unet_targets
from ziplora_core.files import lora_from_tensors
from ziplora_core.lora.factors import LoraFactors

from .. import helpers

TIMESTEPS = torch.tensor([7, 640, 999, 310])
TIME_IDS = torch.tensor(
    [
        [1024, 1024, 0, 0, 1024, 1024],
        [768, 1152, 0, 64, 1024, 1024],
        [1365, 1024, 170, 0, 1024, 1024],
        [640, 480, 0, 0, 832, 1216],
    ]
)
PROMPTS = ("a photo of sks dog", "a dog", "a cat in the rain", "a house")


@pytest.fixture
def prompts(clip: comfy.sd.CLIP) -> tuple[Tensor, Tensor]:
    """Return contexts `(4, 77, 64)` and pooled prompts `(4, 32)`."""
    encoded = [helpers.encode(clip, prompt)[0] for prompt in PROMPTS]
    context = torch.cat([context for context, _ in encoded])
    pooled = torch.cat([extras["pooled_output"] for _, extras in encoded])
    return context.clone(), pooled.clone()


def adm(model: ModelPatcher, pooled: Tensor, time_ids: Tensor) -> Tensor:
    """Return ComfyUI's own size conditioning `(b, 1568)`, computed sample by sample."""
    sizes = ("height", "width", "crop_h", "crop_w", "target_height", "target_width")
    return torch.cat(
        [
            model.model.encode_adm(
                pooled_output=pooled[i : i + 1],
                device=pooled.device,
                **dict(zip(sizes, time_ids[i].tolist(), strict=True)),
            )
            for i in range(len(pooled))
        ]
    )


def error(got: Tensor, want: Tensor) -> float:
    """Return the relative difference of two tensors as vectors."""
    return float((got - want).norm() / want.norm())


def factors() -> dict[str, LoraFactors]:
    """Return a LoRA of rank 8 and alpha 4."""
    return dict(lora_from_tensors(helpers.lora_tensors()[0], name="content").modules)


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize("size", [(16, 16), (24, 40)])
def test_diffusers_unet_same_input_equals_comfyui(
    prediction: tiny.Prediction, size: tuple[int, int], prompts: tuple[Tensor, Tensor]
) -> None:
    model, (context, pooled) = tiny.tiny_sdxl(prediction), prompts
    x = helpers.noise(4, 4, *size)
    with torch.no_grad():
        want = model.model.diffusion_model(
            x, TIMESTEPS.float(), context=context, y=adm(model, pooled, TIME_IDS)
        )
        got = diffusers_unet(model)(
            x,
            TIMESTEPS,
            context,
            added_cond_kwargs={"text_embeds": pooled, "time_ids": TIME_IDS},
        ).sample
    assert error(got, want) < 1e-5


def test_noise_scheduler_equals_comfyui_at_every_timestep(model: ModelPatcher) -> None:
    alphas = noise_scheduler().alphas_cumprod
    sigmas = model.get_model_object("model_sampling").sigmas
    torch.testing.assert_close(((1 - alphas) / alphas).sqrt(), sigmas, rtol=2e-5, atol=0)


def written_out(
    model: ModelPatcher,
    factors: dict[str, LoraFactors],
    latents: Tensor,
    noise: Tensor,
    y: Tensor,
    context: Tensor,
    v_prediction: bool,
    prior_weight: float | None,
    gamma: float,
) -> tuple[Tensor, list[Tensor]]:
    """Compute the papers' formulas on ComfyUI's UNet with dense weights W + scale · up @ down."""
    targets = unet_targets(model.model)
    leaves = [t.clone().requires_grad_() for f in factors.values() for t in (f.down, f.up)]
    pairs = zip(factors.items(), leaves[::2], leaves[1::2], strict=True)
    weights = {
        targets[name].removeprefix("diffusion_model."): model.get_model_object(targets[name])
        + f.scale * up @ down
        for (name, f), down, up in pairs
    }
    sigma = model.get_model_object("model_sampling").sigma(TIMESTEPS).view(-1, 1, 1, 1)
    signal, spread = (1 + sigma**2) ** -0.5, sigma * (1 + sigma**2) ** -0.5
    prediction = functional_call(
        model.model.diffusion_model,
        weights,
        (signal * latents + spread * noise, TIMESTEPS.float()),
        {"context": context, "y": y},
    )
    target = signal * noise - spread * latents if v_prediction else noise
    loss = (prediction - target).square().flatten(1).mean(1)  # (b,)
    snr = sigma.flatten() ** -2
    weight = torch.ones(4) if not gamma else snr.clamp(max=gamma) / (snr + v_prediction)
    if prior_weight is None:
        loss = (weight * loss).mean()
    else:
        loss = (weight * loss)[:2].mean() + prior_weight * loss[2:].mean()
    return loss, list(torch.autograd.grad(loss, leaves))


@pytest.mark.parametrize("prediction", ["eps", "v"])
@pytest.mark.parametrize("prior_weight", [None, 0.7])
@pytest.mark.parametrize("gamma", [0.0, 5.0])
def test_reference_step_equals_the_formulas_on_comfyuis_unet(
    prediction: tiny.Prediction,
    prior_weight: float | None,
    gamma: float,
    prompts: tuple[Tensor, Tensor],
) -> None:
    model, (context, pooled) = tiny.tiny_sdxl(prediction), prompts
    latents, noise = helpers.noise(4, 4, 16, 16), helpers.noise(4, 4, 16, 16, seed=1)
    y, v_prediction = adm(model, pooled, TIME_IDS), prediction == "v"
    want_loss, want = written_out(
        model, factors(), latents, noise, y, context, v_prediction, prior_weight, gamma
    )
    loss, gradients = reference_step(
        diffusers_unet(model), factors(), latents, noise, TIMESTEPS, context, pooled, TIME_IDS,
        v_prediction=v_prediction, prior_weight=prior_weight, min_snr_gamma=gamma,
    )  # fmt: skip
    got = [gradient for pair in gradients.values() for gradient in pair]
    assert list(gradients) == list(factors()) and len(gradients) == 88
    assert abs(loss / want_loss - 1) < 1e-5
    assert max(map(error, got, want)) < 5e-5


def test_reference_step_twice_gives_the_same_and_leaves_the_unet_alone(
    model: ModelPatcher, prompts: tuple[Tensor, Tensor]
) -> None:
    unet, (context, pooled) = diffusers_unet(model), prompts
    before = {name: weight.clone() for name, weight in unet.state_dict().items()}
    latents, noise = helpers.noise(4, 4, 16, 16), helpers.noise(4, 4, 16, 16, seed=1)
    arguments = (factors(), latents, noise, TIMESTEPS, context, pooled, TIME_IDS)
    first, second = (reference_step(unet, *arguments) for _ in range(2))
    after = unet.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert torch.equal(first[0], second[0])
    for name, pair in first[1].items():
        assert all(map(torch.equal, pair, second[1][name]))
