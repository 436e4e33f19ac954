"""Measurements of a slider: how far it moves its attribute, and which others move with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean

import torch
from torch import Tensor

from miniworld.gauge import ATTRIBUTES, Gauge
from miniworld.parts import Parts
from miniworld.probes import Probe
from miniworld.scenes import palette_of
from miniworld.styles import Style
from ziplora_core.comfy_adapter.apply.slider import with_slider
from ziplora_core.lora.factors import LoRA

from ..stats import spearman
from .attributes import PROMPTS, SHOWN

SCALES = tuple(half / 2 for half in range(-4, 5))
SEEDS = 4
"""Pictures of each of the four prompts at every scale, each from another noise."""
START = 0.25
UNNAMED = "stretch"
"""No caption speaks of it, and the gauge reads it to 0.1 only: it is not among the others."""


@dataclass(frozen=True)
class Instruments:
    """Who looks at the pictures; see `miniworld.probes` and `miniworld.gauge`."""

    probes: Mapping[str, Probe]
    gauge: Gauge

    @torch.no_grad()
    def apart(self, before: Tensor, after: Tensor) -> dict[str, float]:
        """How far pictures `(n, 3, h, w)` are apart in every factor, 0 where they are alike.

        Of factors with names, one less the cosine of the probe's embeddings. Of continuous ones,
        by how much each prompt's four pictures change on average, by twice the spread that there
        is in the world: one picture is read to a tenth of that only.
        """
        found = {}
        for probe in self.probes.values():
            a, b = probe(before), probe(after)
            found |= {f: float((1 - (a[f] * b[f]).sum(1)).mean()) for f in probe.factors}
        for name, (_, spread) in ATTRIBUTES.items():
            change = self.gauge(after)[name] - self.gauge(before)[name]
            found[name] = float(change.view(-1, SEEDS).mean(1).abs().mean()) / (2 * spread)
        return found

    @torch.no_grad()
    def subjects(self, pictures: Tensor) -> list[int]:
        """See the subject of each picture, as the number of its class."""
        return self.probes["subject"].logits(pictures)["subject"].argmax(1).tolist()

    def share_changed(self, before: Tensor, after: Tensor) -> float:
        """Share of pictures whose subject is another one: the paper's interference."""
        pairs = zip(self.subjects(before), self.subjects(after), strict=True)
        return mean(float(a != b) for a, b in pairs)


def draw(
    parts: Parts,
    lora: LoRA | None,
    scale: float,
    prompts: Sequence[str] = PROMPTS,
    start: float = START,
) -> Tensor:
    """Draw `(prompts · 4, 3, 128, 128)` with a slider; every prompt has its own four noises."""
    model = parts.model if lora is None else with_slider(parts.model, lora, scale, start)[0]
    drawn = [parts.draw(model, prompt, SEEDS, seed) for seed, prompt in enumerate(prompts, 1)]
    return torch.cat(drawn)


def value(attribute: str, pictures: Tensor) -> Tensor:
    """Measure an attribute where it can be seen: pictures of the prompts `(…, 16, 3, h, w)` →
    `(…, 16)`.

    Brightness is the mean of all pixels. Radius is the root of the subject's area, and stretch how
    much wider than high it is, in octaves, by the standard deviations of its places. What is nearer
    to the style's subject colours than to its ground colours is the subject.
    """
    if attribute == "brightness":
        return pictures.mean((-3, -2, -1))
    palettes = [palette_of(Style(*style.split())).colours() for style in SHOWN.values()]
    colours = torch.stack(palettes).repeat_interleave(SEEDS, 0)[..., None, None]  # (16, 4, 3, 1, 1)
    distance = (pictures[..., None, :, :, :] - colours).square().sum(-3)
    body = (distance.argmin(-3) >= 2).float()  # (…, 16, h, w)
    if attribute == "radius":
        return body.mean((-2, -1)).sqrt()
    return (_extent(body.sum(-2)) / _extent(body.sum(-1))).log2()


def _extent(weights: Tensor) -> Tensor:
    """Standard deviation of the places on a line that has these weights `(…, places)`."""
    line = torch.linspace(-1, 1, weights.shape[-1])
    weights = weights / weights.sum(-1, keepdim=True).clamp_min(1)
    middle = (weights * line).sum(-1, keepdim=True)
    return (weights * (line - middle).square()).sum(-1).clamp_min(1e-9).sqrt()


def rises(scales: Sequence[float], values: Tensor) -> float:
    """Rank correlation of scales and values `(scale, picture)`, mean over the pictures."""
    return mean(spearman(scales, of_picture) for of_picture in values.T.tolist())


def between_seeds(values: Tensor) -> float:
    """Standard deviation of values `(picture,)` between the seeds of a prompt, over all of them."""
    return float(values.view(-1, SEEDS).var(1).mean().sqrt())


def others(apart: Mapping[str, float], attribute: str) -> float:
    """Mean over all factors that captions name, but the attribute itself."""
    return mean(value for name, value in apart.items() if name not in (attribute, UNNAMED))
