"""Measurements of a merge: its pictures, by the probes, and its error against each LoRA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from miniworld.parts import Parts
from miniworld.probes import Probe
from miniworld.scenes import Scene, silhouette
from miniworld.styles import PALETTES, Style

from .subjects import CONTENT_PROMPT, CONTENT_SCENES, Pair

REFERENCES = 32
"""New pictures that alignments and retention are measured against."""
DRAWS = 24
"""Number of held-out (timestep, noise) draws of a retention."""


@dataclass(frozen=True)
class Reference:
    """New pictures of one concept, and how they look to the probe.

    Args:
        factors: what the probe is to see of them: the subject, or palette and texture.
    """

    probe: Probe
    factors: tuple[str, ...]
    pictures: Tensor

    def alignment(self, pictures: Tensor) -> float:
        """Mean cosine between each of the pictures and each of the references, over the factors."""
        return float(self.alignments(pictures).mean())

    @torch.no_grad()
    def alignments(self, pictures: Tensor) -> Tensor:
        """Compute each picture's own alignment `(n,)`."""
        mine, theirs = self.probe(pictures), self.probe(self.pictures)
        cosines = [(mine[factor] @ theirs[factor].T).mean(1) for factor in self.factors]
        return torch.stack(cosines).mean(0)

    @torch.no_grad()
    def recognised(self, pictures: Tensor, names: Mapping[str, str]) -> Tensor:
        """Say of each picture `(n,)` whether the probe sees the right name in every factor."""
        logits = self.probe.logits(pictures)
        seen_right = [
            logits[factor].argmax(1) == self.probe.factors[factor].index(names[factor])
            for factor in self.factors
        ]
        return torch.stack(seen_right).all(0)

    @property
    @torch.no_grad()
    def real(self) -> float:
        """The alignment of the references among themselves: what a perfect LoRA reaches."""
        count, embedded = len(self.pictures), self.probe(self.pictures)
        others = ~torch.eye(count, dtype=torch.bool)
        cosines = [(embedded[f] @ embedded[f].T)[others].mean() for f in self.factors]
        return float(torch.stack(cosines).mean())


@dataclass(frozen=True)
class References:
    content: Reference
    style: Reference


def references(pair: Pair, probes: Mapping[str, Probe]) -> References:
    return References(
        Reference(probes["subject"], ("subject",), pair.new_content_pictures(REFERENCES)),
        Reference(probes["style"], ("palette", "texture"), pair.new_style_pictures(REFERENCES)),
    )


@torch.no_grad()
def seen(probe: Probe, factor: str, value: str, pictures: Tensor) -> float:
    """How surely the probe sees a value of a factor: mean probability."""
    chances = probe.logits(pictures)[factor].softmax(1)
    return float(chances[:, probe.factors[factor].index(value)].mean())


def overlaps(pictures: Tensor, subject: str, style: Style) -> Tensor:
    """Silhouette overlap (intersection over union) of each `(n,)`, at the best size and place.

    A pixel belongs to the drawn silhouette if the style's nearest colour is one of the subject's.
    """
    colours = PALETTES[style.palette].colours()
    distance = (pictures[:, None] - colours[None, :, :, None, None]).square().sum(2)
    drawn = (distance.argmin(1) >= 2).float()
    steps = (-0.12, -0.06, 0.0, 0.06, 0.12)
    fits = torch.stack([
        silhouette(Scene(subject, style, radius=radius, shift=(x, y)))
        for radius in (0.44, 0.5, 0.56, 0.62, 0.68, 0.74, 0.8)
        for x in steps
        for y in steps
    ])  # fmt: skip
    both = torch.einsum("bhw,fhw->bf", drawn, fits)
    either = drawn.sum((1, 2))[:, None] + fits.sum((1, 2)) - both
    return (both / either).amax(1)


class RetentionTest:
    """Held-out noisy samples with the predictions of each LoRA alone, for the retention.

    Everything goes through ComfyUI's own loader and model: nothing of the pack's training is used.

    Args:
        single: MODELs with the content LoRA and with the style LoRA alone.
    """

    def __init__(
        self, parts: Parts, pair: Pair, refs: References, single: Sequence[ModelPatcher]
    ) -> None:
        content = parts.encode(CONTENT_PROMPT)
        self.inputs = [
            (_noised(parts, pair.new_content_pictures(DRAWS, [CONTENT_SCENES[0][0]])), content),
            (_noised(parts, refs.style.pictures[:DRAWS]), parts.encode(pair.style_prompt)),
        ]
        self.targets = [
            _predict(model, *inputs) for model, inputs in zip(single, self.inputs, strict=True)
        ]

    def __call__(self, model: ModelPatcher) -> tuple[float, float]:
        """Mean squared error in v against content and style alone."""
        errors = [
            float((_predict(model, *inputs) - target).square().mean())
            for inputs, target in zip(self.inputs, self.targets, strict=True)
        ]
        return errors[0], errors[1]


@torch.inference_mode()
def _noised(parts: Parts, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Noise pictures at timesteps spread over the schedule: x `(n, 12, 16, 16)`, σ `(n,)`."""
    generator = torch.Generator().manual_seed(99)
    latents = parts.model.model.process_latent_in(parts.vae.encode(pictures.movedim(1, -1)))
    sampling = parts.model.model.model_sampling
    count = len(latents)
    timesteps = ((torch.arange(count) + 0.5) / count * len(sampling.sigmas)).long()
    sigma = sampling.sigmas[timesteps]
    noise = torch.randn(latents.shape, generator=generator)
    return latents + sigma[:, None, None, None] * noise, sigma


@torch.inference_mode()
def _predict(
    model: ModelPatcher, noised: tuple[Tensor, Tensor], conditioning: list[list]
) -> Tensor:
    """Predict v: v = (x / (1 + σ²) − x₀) · √(1 + σ²) / σ."""
    x, sigma = noised
    variance = (1 + sigma.square())[:, None, None, None]
    x0 = denoised(model, x, sigma, conditioning)
    return (x / variance - x0) * variance.sqrt() / sigma[:, None, None, None]


@torch.inference_mode()
def denoised(model: ModelPatcher, x: Tensor, sigma: Tensor, conditioning: list[list]) -> Tensor:
    """Predict x₀ with ComfyUI's model, patches and all."""
    comfy.model_management.load_models_gpu([model], force_full_load=True)
    context, options = conditioning[0]
    side = 8 * x.shape[-1]
    adm = model.model.encode_adm(width=side, height=side, device=x.device, **options)
    return model.model.apply_model(
        x, sigma, c_crossattn=context.expand(len(x), -1, -1), y=adm.expand(len(x), -1),
        transformer_options={},
    )  # fmt: skip
