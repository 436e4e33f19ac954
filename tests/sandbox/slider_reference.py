"""The public Concept Sliders training step on the tiny SDXL, a reference for our trainer.

It follows `trainscripts/textsliders/train_lora_xl.py`, `train_util.py` and `lora.py` of
github.com/rohitgandikota/sliders (a465294) line by line, on diffusers' own UNet and scheduler. One
mistake is corrected: the code evaluates the UNet 19 timesteps above the latent's own.
Call `paths.use_comfyui()` before importing this.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import comfy.utils
import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn

from ziplora_core.lora.factors import UNET_PREFIX, LoraFactors

from .tiny_pack.models import UNET_CONFIG

ATTENTION = ["Attention"]
CONVOLUTIONS = ["ResnetBlock2D", "Downsample2D", "Upsample2D", "DownBlock2D", "UpBlock2D"]
GUIDANCE_ON_THE_WAY = 3
DENOISING_STEPS = 50


def chosen_modules(unet: nn.Module, training_method: str) -> list[str]:
    """List the modules that `LoRANetwork.create_modules` trains, type c3lier."""
    names = []
    for name, module in unet.named_modules():
        if training_method == "noxattn" and ("attn2" in name or "time_embed" in name):
            continue
        if training_method == "selfattn" and "attn1" not in name:
            continue
        if training_method in ("xattn", "xattn-strict") and "attn2" not in name:
            continue
        if module.__class__.__name__ in ATTENTION + CONVOLUTIONS:
            for child_name, child in module.named_modules():
                if child.__class__.__name__ in ("Linear", "Conv2d"):
                    if training_method == "xattn-strict" and "out" in child_name:
                        continue
                    full = f"{name}.{child_name}"
                    if full not in names:
                        names.append(full)
    return names


class LoRANetwork:
    """`y = org(x) + up(down(x)) * multiplier * (alpha / rank)` on a UNet's modules."""

    def __init__(self, unet: nn.Module, factors: Mapping[str, LoraFactors]) -> None:
        names = comfy.utils.unet_to_diffusers(UNET_CONFIG)
        sgm = {_kohya(names[f"{n}.weight"]): n for n, m in unet.named_modules() if _trainable(m)}
        self.multiplier = 0.0
        self.down = {name: _leaf(f.down) for name, f in factors.items()}
        self.up = {name: _leaf(f.up) for name, f in factors.items()}
        for name, f in factors.items():
            layer = unet.get_submodule(sgm[name])
            layer.register_forward_hook(self._hook(name, f.scale))

    def _hook(self, name: str, scale: float):
        def add(layer: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
            if isinstance(layer, nn.Conv2d):
                lower = F.conv2d(inputs[0], self.down[name], None, layer.stride, layer.padding)
                return out + F.conv2d(lower, self.up[name]) * self.multiplier * scale
            lower = F.linear(inputs[0], self.down[name])
            return out + F.linear(lower, self.up[name]) * self.multiplier * scale

        return add

    @contextmanager
    def at(self, multiplier: float) -> Iterator[None]:
        self.multiplier = multiplier
        yield
        self.multiplier = 0.0


@dataclass(frozen=True)
class PromptEmbeds:
    """A prompt: context `(1, tokens, width)` and pooled `(1, width)`."""

    context: Tensor
    pooled: Tensor


@dataclass(frozen=True)
class Settings:
    """One entry of the prompt file, encoded."""

    target: PromptEmbeds
    positive: PromptEmbeds
    unconditional: PromptEmbeds
    neutral: PromptEmbeds
    action: str
    guidance_scale: float
    resolution: int


def predict_noise_xl(
    unet: UNet2DConditionModel,
    timestep: int,
    latents: Tensor,
    negative: PromptEmbeds,
    prompt: PromptEmbeds,
    resolution: int,
    guidance_scale: float = 1,
) -> Tensor:
    """Predict both halves in one batch and combine them as `u + g (c − u)`."""
    time_ids = torch.tensor([[resolution, resolution, 0, 0, resolution, resolution]] * 2)
    noise_pred = unet(
        torch.cat([latents] * 2),
        timestep,
        encoder_hidden_states=torch.cat([negative.context, prompt.context]),
        added_cond_kwargs={
            "text_embeds": torch.cat([negative.pooled, prompt.pooled]),
            "time_ids": time_ids,
        },
    ).sample
    noise_pred_uncond, noise_pred_text = noise_pred.chunk(2)
    return noise_pred_uncond + guidance_scale * (noise_pred_text - noise_pred_uncond)


def scheduler() -> DDIMScheduler:
    """Make the 50-step scheduler of `create_noise_scheduler("ddim")` with diffusers 0.20."""
    made = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        num_train_timesteps=1000,
        clip_sample=False,
    )
    made.set_timesteps(DENOISING_STEPS)
    return made


def text_slider_loss(
    unet: UNet2DConditionModel,
    network: LoRANetwork,
    prompt: Settings,
    timesteps_to: int,
    noise: Tensor,
) -> Tensor:
    """Compute the loss of one step of `train()`.

    Args:
        timesteps_to: the number of denoising steps before it.
        noise: `(1, 4, h, w)`.
    """
    steps = scheduler()
    with torch.no_grad():
        denoised_latents = noise * steps.init_noise_sigma
        with network.at(1.0):
            for timestep in steps.timesteps[:timesteps_to]:
                noise_pred = predict_noise_xl(
                    unet, timestep, denoised_latents, prompt.unconditional, prompt.target,
                    prompt.resolution, GUIDANCE_ON_THE_WAY,
                )  # fmt: skip
                denoised_latents = steps.step(noise_pred, timestep, denoised_latents).prev_sample
        current_timestep = steps.timesteps[timesteps_to]
        positive, neutral, unconditional = (
            predict_noise_xl(
                unet, current_timestep, denoised_latents, prompt.unconditional, embeds,
                prompt.resolution,
            )
            for embeds in (prompt.positive, prompt.neutral, prompt.unconditional)
        )  # fmt: skip
    with network.at(1.0):
        target = predict_noise_xl(
            unet, current_timestep, denoised_latents, prompt.unconditional, prompt.target,
            prompt.resolution,
        )  # fmt: skip
    sign = 1 if prompt.action == "enhance" else -1
    offset = prompt.guidance_scale * (positive - unconditional)
    return F.mse_loss(target, neutral + sign * offset)


def _trainable(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | nn.Conv2d)


def _leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().clone().requires_grad_()


def _kohya(sgm: str) -> str:
    return UNET_PREFIX + sgm.removesuffix(".weight").replace(".", "_")
