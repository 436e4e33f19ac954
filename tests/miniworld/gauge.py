"""A small network that measures the world's continuous attributes in a picture.

It is trained as the probes are: on drawn pictures with known values, held-out subjects and styles
too, and never on a generated one.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from .checkpoint import WEIGHTS, read
from .loop import Averaged, Schedule, Training
from .probes import BATCH, SIDE, Seeing, any_scene, roughened
from .scenes import Scene, render

FILE = WEIGHTS / "gauge.safetensors"
SCHEDULE = Schedule(3_000, 2e-3, 2e-5)
ATTRIBUTES = {"radius": (0.52, 0.16), "brightness": (0.0, 0.58), "stretch": (0.0, 0.58)}
"""Middle and spread of each: the network sees values as multiples of the spread."""
ROOM = 0.95
"""Half of the picture's side that a subject may take up."""


class Gauge(Seeing):
    """`(b, 3, h, w)` in [0, 1] → the value `(b,)` of each attribute, in the world's own units."""

    def __init__(self) -> None:
        super().__init__(len(ATTRIBUTES))

    def forward(self, pictures: Tensor) -> dict[str, Tensor]:
        columns = self.look(pictures).unbind(1)
        return {
            name: middle + spread * column
            for (name, (middle, spread)), column in zip(ATTRIBUTES.items(), columns, strict=True)
        }


class GaugeTraining(Training):
    """A gauge learning from pictures drawn as it goes, roughened as a sampler's are."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        torch.manual_seed(seed)
        self.gauge = Gauge()
        self.averaged = Averaged(list(self.gauge.parameters()), 0.99)

    def loss(self) -> Tensor:
        rng = random.Random(f"gauge {self.seed} {self.step}")
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.step)
        scenes = [draw_measured(rng) for _ in range(BATCH)]
        pictures = torch.stack([roughened(render(s, SIDE), rng, generator) for s in scenes])
        found = self.gauge(pictures)
        errors = [
            F.smooth_l1_loss(found[name] / spread, known(scenes, name) / spread, beta=0.2)
            for name, (_, spread) in ATTRIBUTES.items()
        ]
        return torch.stack(errors).sum()


def draw_measured(rng: random.Random) -> Scene:
    """Draw any scene with every attribute anywhere in its range, as far as the picture holds it."""
    stretch = rng.uniform(-1, 1) if rng.random() < 0.5 else 0.0
    room = ROOM / 2 ** (abs(stretch) / 2)
    scene = replace(any_scene(rng), brightness=rng.uniform(-1, 1), stretch=stretch)
    if scene.place or scene.companion:
        return scene
    return replace(scene, radius=rng.uniform(0.22, min(0.85, room)))


def known(scenes: list[Scene], attribute: str) -> Tensor:
    return torch.tensor([getattr(scene, attribute) for scene in scenes])


@torch.no_grad()
def errors(gauge: Gauge, count: int = 1000, seed: int = 1) -> dict[str, float]:
    """Measure the mean absolute error on `count` newly drawn pictures, by attribute."""
    rng = random.Random(f"errors {seed}")
    scenes = [draw_measured(rng) for _ in range(count)]
    found = gauge(torch.stack([render(scene, SIDE) for scene in scenes]))
    return {name: float((found[name] - known(scenes, name)).abs().mean()) for name in ATTRIBUTES}


def save_gauge(state: Mapping[str, Tensor], path: Path = FILE) -> None:
    save_file({name: tensor.half().contiguous() for name, tensor in state.items()}, path)


def load_gauge(path: Path = FILE) -> Gauge:
    """Load it.

    Raises:
        MiniWorldError: the file is missing or damaged.
    """
    gauge = Gauge()
    gauge.load_state_dict(read(path))
    return gauge
