"""Two small networks that see what a picture shows: the world's DINO and CLIP-I.

They are trained on drawn pictures with known factors, held-out subjects and styles too, and never
on a generated one. An embedding is a unit vector per factor, trained by cosine softmax (Wang et al.
2018, CosFace without the margin), so that cosines of the same class are near 1.
"""

from __future__ import annotations

import random
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .loop import Averaged, Schedule, Training
from .scenes import COMPANIONS, PLACES, Scene, render
from .shapes import SHAPES
from .styles import PALETTES, TEXTURES, Style
from .world import draw_scene

SIDE = 64
"""Pixels that a probe looks at."""
SCHEDULE = Schedule(1_500, 2e-3, 2e-5)
BATCH = 48
WIDTH = 32
SHARPNESS = 12.0
"""Inverse temperature of the cosine softmax."""

SUBJECT = {"subject": tuple(SHAPES), "place": tuple(PLACES), "companion": ("", *COMPANIONS)}
STYLE = {"palette": tuple(PALETTES), "texture": tuple(TEXTURES)}


class Seeing(nn.Module):
    """Convolutions, then a linear layer: `(b, 3, h, w)` in [0, 1] → `(b, out)`."""

    def __init__(self, out: int) -> None:
        super().__init__()
        widths = (3, 24, 48, 96, 128)
        self.layers = nn.ModuleList(
            nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for width in widths[1:])
        self.head = nn.Linear(widths[-1] * 16, out)

    def look(self, pictures: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(pictures, SIDE) - 0.5
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = F.silu(norm(layer(x)))
        return self.head(x.flatten(1))


class Probe(Seeing):
    """A unit vector for each factor; its cosine with a class is the logit.

    Args:
        factors: the names of the classes of each factor.
    """

    def __init__(self, factors: dict[str, tuple[str, ...]]) -> None:
        super().__init__(WIDTH * len(factors))
        self.factors = factors
        self.classes = nn.ParameterList(
            nn.Parameter(torch.randn(len(names), WIDTH)) for names in factors.values()
        )

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        """Embed pictures `(b, 3, h, w)` in [0, 1]: a unit vector `(b, 32)` for each factor."""
        parts = self.look(pictures).chunk(len(self.factors), 1)
        return {name: F.normalize(p, dim=1) for name, p in zip(self.factors, parts, strict=True)}

    def logits(self, pictures: Tensor) -> dict[str, Tensor]:
        embedded = self(pictures)
        return {
            name: SHARPNESS * embedded[name] @ F.normalize(weights, dim=1).T
            for name, weights in zip(self.factors, self.classes, strict=True)
        }


class ProbeTraining(Training):
    """A probe learning from pictures drawn as it goes, roughened as a sampler's are."""

    def __init__(self, factors: dict[str, tuple[str, ...]], seed: int) -> None:
        self.seed = seed
        torch.manual_seed(seed)
        self.probe = Probe(factors)
        self.averaged = Averaged(list(self.probe.parameters()), 0.99)

    def loss(self) -> Tensor:
        rng = random.Random(f"probe {self.seed} {self.step}")
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)
        scenes = [any_scene(rng) for _ in range(BATCH)]
        pictures = torch.stack([roughened(render(s, SIDE), rng, generator) for s in scenes])
        logits = self.probe.logits(pictures)
        loss = sum(
            F.cross_entropy(logits[name], known(scenes, name, names))
            for name, names in self.probe.factors.items()
        )
        assert isinstance(loss, Tensor)
        return loss


def any_scene(rng: random.Random) -> Scene:
    """Draw a scene of any subject in any style, held-out ones included."""
    style = Style(rng.choice(tuple(PALETTES)), rng.choice(tuple(TEXTURES)))
    return draw_scene(rng, tuple(SHAPES), [style])


def known(scenes: list[Scene], factor: str, names: tuple[str, ...]) -> Tensor:
    """Give the class of each scene in a factor."""
    return torch.tensor([names.index(_value(scene, factor)) for scene in scenes])


@torch.no_grad()
def accuracy(probe: Probe, count: int = 1000, seed: int = 1) -> dict[str, float]:
    """Measure how many of `count` newly drawn pictures it sees right, by factor."""
    rng = random.Random(f"accuracy {seed}")
    scenes = [any_scene(rng) for _ in range(count)]
    right = {name: 0 for name in probe.factors}
    for at in range(0, count, 100):
        part = scenes[at : at + 100]
        logits = probe.logits(torch.stack([render(scene) for scene in part]))
        for name, names in probe.factors.items():
            right[name] += int((logits[name].argmax(1) == known(part, name, names)).sum())
    return {name: value / count for name, value in right.items()}


def _value(scene: Scene, factor: str) -> str:
    if factor in STYLE:
        return getattr(scene.style, factor)
    return getattr(scene, factor)


def roughened(picture: Tensor, rng: random.Random, generator: torch.Generator) -> Tensor:
    """Blur and noise, each in half of the pictures."""
    if rng.random() < 0.5:
        coarse = F.avg_pool2d(picture[None], 2)
        picture = F.interpolate(coarse, scale_factor=2, mode="bilinear")[0]
    if rng.random() < 0.5:
        noise = torch.randn(picture.shape, generator=generator)
        picture = picture + 0.06 * rng.random() * noise
    return picture
