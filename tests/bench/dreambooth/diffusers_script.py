"""diffusers' `train_dreambooth_lora_sdxl.py` with latents and prompts encoded beforehand."""

from __future__ import annotations

from collections.abc import Callable

import torch

from sandbox import tiny
from sandbox.diffusers_reference import add_lora, diffusers_unet, noise_scheduler, training_loss

from .task import Task


def train(task: Task, steps: int, on_step: Callable[[], None], rank: int) -> None:
    """Run the script's loop, in its order and with its defaults."""
    model = tiny.tiny_sdxl()
    unet, scheduler = diffusers_unet(model).train(), noise_scheduler()
    pairs = add_lora(unet, rank, alpha=rank).values()
    parameters = [parameter for pair in pairs for parameter in pair]
    optimiser = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=1e-4)

    latents = model.model.process_latent_in(task.samples())
    [[context, extras]] = task.conditioning()
    height, width = task.images.shape[1:3]
    time_ids = torch.tensor([[height, width, 0, 0, height, width]]).repeat(task.batch, 1)
    context = context.repeat(task.batch, 1, 1)
    pooled = extras["pooled_output"].repeat(task.batch, 1)

    for _ in range(steps):
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, 1000, (task.batch,))
        loss = training_loss(unet, scheduler, latents, noise, timesteps, context, pooled, time_ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad()
        loss.item()  # the script's progress bar shows it
        on_step()
