"""A MODEL's latents and noise: levels, noisy latents and what it is to predict for them."""

from __future__ import annotations

from typing import Any

import comfy.model_management
import comfy.model_sampling
import torch
from torch import Tensor

from .family import is_flow, latent_shape


class NoiseSchedule:
    """The noise levels of a MODEL and the arithmetic of its own sampling object.

    Args:
        patcher: the ModelPatcher.
    """

    def __init__(self, patcher: Any) -> None:
        self.patcher = patcher
        self.sigmas: Tensor = self.sampling.sigmas.cpu()
        """σ of every timestep, ascending; on the CPU, so that a look-up waits for no device."""

    @property
    def sampling(self) -> Any:
        """The MODEL's own sampling object, with prediction type and noise schedule."""
        return self.patcher.get_model_object("model_sampling")

    @property
    def v_prediction(self) -> bool:
        return isinstance(self.sampling, comfy.model_sampling.V_PREDICTION)

    @property
    def flow(self) -> bool:
        return is_flow(self.patcher.model)

    @property
    def device(self) -> torch.device:
        return self.patcher.load_device

    @property
    def timesteps(self) -> int:
        return len(self.sigmas)

    def draw_timestep(self, rng: torch.Generator) -> int:
        """Draw a timestep: uniform, and for a flow logit-normal (Esser et al. 2024,
        arXiv:2403.03206, sec. 3.1), of the model's own shifted schedule."""
        if not self.flow:
            return int(torch.randint(self.timesteps, (), generator=rng))
        place = torch.randn((), generator=rng).sigmoid()
        return min(int(place * self.timesteps), self.timesteps - 1)

    def latent_shape(self, height: int, width: int) -> tuple[int, ...]:
        """Return the latent shape `(c, [1,] h, w)` of a picture's sides in pixels."""
        return latent_shape(self.patcher.model, height, width)

    def place(self, tensor: Tensor) -> Tensor:
        """Copy a tensor to the device, asynchronously if ComfyUI considers that safe there."""
        non_blocking = comfy.model_management.device_supports_non_blocking(self.device)
        return tensor.to(self.device, non_blocking=non_blocking)

    def pure_noise(self, noise: Tensor, sigma: float) -> Tensor:
        """Return x_t = noise √(1 + σ²), and for a flow σ noise, without any picture in it."""
        return noise * (sigma if self.flow else (1 + sigma**2) ** 0.5)

    def noised(self, x0: Tensor, noise: Tensor, timestep: int) -> tuple[Tensor, Tensor, Tensor]:
        """Compute x_t = x0 + σ·noise; return it, σ `()` and the target, float32 on the device.

        The target is the exact prediction in float64: noise for eps, (noise − σ·x0)/√(1+σ²) for v.
        """
        x0, sigma = x0.double(), self.sigmas[timestep]
        x = self.sampling.noise_scaling(sigma.double(), noise.double(), x0)
        right = self.prediction(x, sigma.double(), x0)
        return self.place(x.float()), self.place(sigma), self.place(right.float())

    def noise_of(self, x: Tensor, sigma: Tensor, x0: Tensor) -> Tensor:
        """Compute the noise that makes `x` of `x0` at a noise level, for any kind of prediction."""
        return (x - self.sampling.noise_scaling(sigma, torch.zeros_like(x), x0)) / sigma

    def prediction(self, x: Tensor, sigma: Tensor, x0: Tensor) -> Tensor:
        """Compute the prediction (eps, v or velocity) at `x` that corresponds to `x0`.

        x0 = base + slope · prediction. The MODEL's own sampling object gives base and slope, so
        eps, v, zero-terminal-SNR and flow models need no separate cases.
        """
        zeros = torch.zeros_like(x)
        base = self.sampling.calculate_denoised(sigma, zeros, x)
        slope = self.sampling.calculate_denoised(sigma, torch.ones_like(x), zeros)
        return (x0 - base) / slope
