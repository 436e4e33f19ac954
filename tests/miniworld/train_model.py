"""Train the UNet on the world; the text encoders stay as `train_text` has left them."""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn

from .data import Pictures
from .loop import Averaged, Schedule, Training
from .network import TrainedText, new_model
from .scenes import SIDE

PICTURES = 60_000
SCHEDULE = Schedule(7_400, 1e-3, 1e-5)
BATCH = 32
WITHOUT_CAPTION = 0.1
SHAPES_DECIDED = (0.15, 0.75)
"""Part of the schedule in which half of the timesteps lie: σ from 0.4 to 5."""


class ModelTraining(Training):
    """The miniature SDXL learning to draw."""

    def __init__(self, pictures: Pictures, text: TrainedText, seed: int = 0) -> None:
        self.pictures, self.text, self.seed = pictures, text, seed
        self.model = new_model(seed)
        self.unet = self.model.diffusion_model.requires_grad_(True)
        sigmas = self.model.model_sampling.sigmas.double()
        self.signal = (1 / (1 + sigmas.square())).sqrt().float()
        self.noise = (sigmas / (1 + sigmas.square()).sqrt()).float()
        frame = [torch.tensor([value]) for value in (SIDE, SIDE, 0, 0, SIDE, SIDE)]
        self.size = torch.cat([self.model.embedder(value) for value in frame]).flatten()
        self.averaged = Averaged(list(self.unet.parameters()), 0.999, _hidden(self.unet))

    def loss(self) -> Tensor:
        """Mean squared error of v = √ᾱ ε − √(1 − ᾱ) x₀ (Salimans & Ho 2022)."""
        rng = random.Random(f"{self.seed} {self.step}")
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)
        rows = [rng.randrange(len(self.pictures.captions)) for _ in range(BATCH)]
        captions = [
            "" if rng.random() < WITHOUT_CAPTION else self.pictures.captions[row] for row in rows
        ]
        latents = self.pictures.latents(rows)
        noise = torch.randn(latents.shape, generator=generator)
        timesteps = draw_timesteps(len(self.signal), generator)
        signal, sigma = (part[timesteps, None, None, None] for part in (self.signal, self.noise))
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                context, pooled = self.text(captions)
            y = torch.cat([pooled, self.size.expand(BATCH, -1)], 1)
            x = signal * latents + sigma * noise
            prediction = self.unet(x, timesteps.float(), context=context, y=y)
        return (prediction.float() - (signal * noise - sigma * latents)).square().mean()


def draw_timesteps(count: int, generator: torch.Generator) -> Tensor:
    """Draw a batch of timesteps, stratified: half of them among all, half where shapes are decided.

    Noisier than that, little but colours shows; with less noise, every edge is there to be seen.
    """
    spread = (torch.arange(BATCH) + torch.rand(BATCH, generator=generator)) / BATCH
    low, high = SHAPES_DECIDED
    place = torch.where(spread < 0.5, 2 * spread, low + (high - low) * (2 * spread - 1))
    return (place * count).long().clamp(max=count - 1)


def _hidden(unet: nn.Module) -> list[nn.Parameter]:
    """List the matrices of the hidden layers, which Muon is made for: not the first and last."""
    ends = ("input_blocks.0.", "out.", "label_emb.", "time_embed.")
    return [p for name, p in unet.named_parameters() if p.ndim > 1 and not name.startswith(ends)]
