"""Full fine-tuning of the same UNet: the cost of DreamBooth without a LoRA."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from comfy.ldm.modules.attention import attention_pytorch

from sandbox import tiny

from .task import Task


def train(task: Task, steps: int, on_step: Callable[[], None]) -> None:
    """Train every parameter of ComfyUI's UNet with AdamW and, like ours, PyTorch's attention."""
    model = tiny.tiny_sdxl().model
    unet, sampling = model.diffusion_model.requires_grad_(True), model.model_sampling
    optimiser = torch.optim.AdamW(unet.parameters(), lr=1e-6)

    latents = model.process_latent_in(task.samples())
    [[context, extras]] = task.conditioning()
    height, width = task.images.shape[1:3]
    y = model.encode_adm(width=width, height=height, device=latents.device, **extras)
    context, y = context.repeat(task.batch, 1, 1), y.repeat(task.batch, 1)
    options = {"optimized_attention_override": lambda _, *a, **k: attention_pytorch(*a, **k)}

    for _ in range(steps):
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, 1000, (task.batch,))
        sigma = sampling.sigma(timesteps)
        x = sampling.noise_scaling(sigma, noise, latents)
        prediction = unet(
            sampling.calculate_input(sigma, x),
            timesteps.float(),
            context=context,
            y=y,
            transformer_options=options,
        )
        loss = F.mse_loss(prediction, noise)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        loss.item()
        on_step()
