"""The judge that needs no encoder, held against the probes: what it sees, and what fools it.

All variants of the judge are made of a few products, kept for every picture and noise level: the
noise and the LoRAs' predictions as vectors less the base's prediction, multiplied with each other.
So every choice of levels can be tried without another evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import mean

import torch
from comfy.model_patcher import ModelPatcher
from comfy.samplers import calculate_sigmas
from torch import Tensor

from miniworld.parts import GUIDANCE, STEPS, load_parts
from miniworld.probe_files import load_probes
from miniworld.scenes import SIDE, Scene, render
from miniworld.styles import Style
from sandbox.commands import say
from sandbox.tiny_pack.mini import LATENT_CHANNELS

from . import cache
from .benchmark import train_loras
from .conditions import AS_MADE, CONDITIONS, STRENGTHS
from .experiment import PICTURES, SEED, Bench, as_bytes, make_bench
from .measure import denoised
from .methods import CLOSED_FORM, DIRECT, NULL_SPACE
from .sources import LAYERS
from .subjects import JOINT_PROMPT, TUNING, Pair

LEVELS = (0.1, 0.35, 0.45, 0.55, 0.65, 0.8)
"""Parts of the schedule; the node's four draws are among them."""
NODE = (1, 2, 3, 4)
"""The node's levels, by their places."""
ENDS = ("base model", "content LoRA alone", "style LoRA alone")
"""Where the scale is 0 and 1."""
NOISE = 7
JUDGING = cache.code("tests/quality/judge.py", "tests/quality/experiment.py")
MERGES = (NULL_SPACE, CLOSED_FORM)
COMPOSED = "composed predictions"


@dataclass
class JudgedPair:
    """A pair's cells: what the probes say of each picture, and the products of the judge.

    Args:
        figures: subject, style and both right of each picture, by cell.
        products: `(picture, level, 3, 3)` by cell: content − base, style − base and noise − base,
            multiplied with each other, in means over the latent.
    """

    pair: Pair
    figures: dict[str, Mapping[str, list[float]]] = field(default_factory=dict)
    products: dict[str, Tensor] = field(default_factory=dict)

    def both(self, name: str) -> float:
        """Sum a cell's two mean alignments."""
        return mean(self.figures[name]["subject"]) + mean(self.figures[name]["style"])


def run(workers: Executor, pairs: Sequence[Pair], layers: str = LAYERS) -> list[JudgedPair]:
    """Draw and judge the cells of every pair, with LoRAs of these layers."""
    train_loras(workers, pairs, layers=layers)
    return list(workers.map(judge_pair, pairs, [layers] * len(pairs)))


def judge_pair(pair: Pair, layers: str = LAYERS) -> JudgedPair:
    """Judge strengths of a pair's direct merge and, of a tuning pair, what may fool the judge."""
    bench = make_bench(load_parts(), pair, load_probes(), layers=layers)
    judged = JudgedPair(pair)
    cells: dict[str, Callable[[], cache.State]] = {
        **{name: lambda m=name: bench.joint(m, CONDITIONS[AS_MADE]) for name in ENDS},
        **{name: lambda c=c: bench.joint(DIRECT, c) for name, c in STRENGTHS.items()},
    }
    if layers == LAYERS and pair in TUNING:
        cells |= {
            **{name: lambda m=name: bench.joint(m, CONDITIONS[AS_MADE]) for name in MERGES},
            COMPOSED: lambda: composed(bench),
            **{name: lambda p=p: _shown(bench, p) for name, p in real_pictures(pair).items()},
        }
    for name, make in cells.items():
        cell = make()
        judged.figures[name] = {n: cell[n] for n in ("subject", "style", "both right")}
        judged.products[name] = products(bench, cell["pictures"])
    say(f"judged: {pair.name}, {layers}")
    return judged


def real_pictures(pair: Pair) -> dict[str, Tensor]:
    """Draw by code what the joint picture should be, and what it should not be."""
    seen = Style("sunset", "plain")  # of no training picture
    scenes = {
        "real: subject in style": (pair.subject, pair.style),
        "real: subject in another style": (pair.subject, seen),
        "real: another subject in style": ("hourglass", pair.style),
        "real: neither": ("hourglass", seen),
    }
    return {
        name: torch.stack([
            render(Scene(subject, style, radius=radius, shift=(shift, -shift)))
            for radius, shift in ((0.54, 0.0), (0.6, 0.05), (0.64, -0.05), (0.7, 0.0))
        ])
        for name, (subject, style) in scenes.items()
    }  # fmt: skip


def _shown(bench: Bench, pictures: Tensor) -> cache.State:
    return {**bench.measured(pictures), "pictures": as_bytes(pictures)}


def products(bench: Bench, pictures: Tensor) -> Tensor:
    """Predict pictures `(n, 3, h, w)` in bytes at every level, and multiply the differences."""

    def make() -> cache.State:
        parts = bench.task.parts
        latents = parts.vae.encode(pictures.movedim(1, -1).float() / 255)
        latents = parts.model.model.process_latent_in(latents)
        models = [parts.model, *bench.single]
        sigmas = parts.model.model.model_sampling.sigmas
        generator = torch.Generator().manual_seed(NOISE)
        levels = []
        for level in LEVELS:
            sigma = sigmas[round(level * (len(sigmas) - 1))].expand(len(latents))
            noise = torch.randn(latents[:1].shape, generator=generator).expand_as(latents)
            x = latents + sigma[:, None, None, None] * noise
            base, content, style = (
                predicted_noise(model, x, sigma, parts.encode(JOINT_PROMPT)) for model in models
            )
            sides = torch.stack([content - base, style - base, noise - base], 1).flatten(2)
            levels.append(sides @ sides.mT / sides.shape[2])
        return {"products": torch.stack(levels, 1)}

    inputs = {**bench.inputs("judge"), "pictures": pictures, "levels": LEVELS, "judging": JUDGING}
    return cache.cached("judged", inputs, make)["products"]


@torch.inference_mode()
def predicted_noise(
    model: ModelPatcher, x: Tensor, sigma: Tensor, conditioning: list[list]
) -> Tensor:
    """Predict the noise in x: ε = (x − x₀) / σ."""
    x0 = denoised(model, x, sigma, conditioning)
    return ((x - x0) / sigma[:, None, None, None]).clone()


def composed(bench: Bench) -> cache.State:
    """Draw with both LoRAs' changes of the prediction added: Euler, 16 steps, CFG 3."""

    def make() -> cache.State:
        parts = bench.task.parts
        joint, empty = parts.encode(JOINT_PROMPT), parts.encode("")
        sigmas = calculate_sigmas(parts.model.model.model_sampling, "normal", STEPS)
        generator = torch.Generator().manual_seed(SEED)
        x = torch.randn(PICTURES, LATENT_CHANNELS, SIDE // 8, SIDE // 8, generator=generator)
        x *= (1 + sigmas[0].square()).sqrt()
        for sigma, after in pairwise(sigmas):
            at = sigma.expand(PICTURES)
            nothing = predicted_noise(parts.model, x, at, empty)
            base, content, style = (
                predicted_noise(m, x, at, joint) for m in (parts.model, *bench.single)
            )
            noise = nothing + GUIDANCE * (content + style - base - nothing)
            x = x + (after - sigma) * noise
        latents = parts.model.model.process_latent_out(x)
        drawn = parts.vae.decode(latents).movedim(-1, 1).clamp(0, 1)
        return {**bench.measured(drawn), "pictures": as_bytes(drawn)}

    return cache.cached("joint", {**bench.inputs("composed"), "judging": JUDGING}, make)


def amounts(kept: Tensor, levels: Sequence[int] = NODE) -> Tensor:
    """Solve for the amounts `(picture, 2)` of content and style, over these levels."""
    whole = kept[:, list(levels)].double().sum(1)
    return torch.linalg.solve(whole[:, :2, :2], whole[:, :2, 2])


def error_differences(kept: Tensor) -> Tensor:
    """How much better each LoRA alone predicts the noise than the base model, at the node's levels.

    A diffusion classifier (Li et al. 2023, arXiv:2303.16203): ‖r‖² − ‖r − d‖² = 2 ⟨r, d⟩ − ‖d‖², r
    the base's error and d the LoRA's change.
    """
    whole = kept[:, list(NODE)].double().sum(1)
    return 2 * whole[:, :2, 2] - whole[:, (0, 1), (0, 1)]


Measure = Callable[[Tensor], Tensor]
"""From the products of a cell `(picture, level, 3, 3)` to a figure each of content and style."""


def calibrated(judged: JudgedPair) -> bool:
    """Whether the node would judge with this pair: each LoRA's own pictures have more of it."""
    zero, one = _ends({name: amounts(judged.products[name]) for name in ENDS})
    return bool((one > zero).all())


def scores(judged: JudgedPair, measure: Measure = amounts) -> dict[str, Tensor]:
    """Scale a measure `(picture, 2)`: the base model's pictures 0, each LoRA's own 1."""
    raw = {name: measure(kept) for name, kept in judged.products.items()}
    zero, one = _ends(raw)
    return {name: (value - zero) / (one - zero) for name, value in raw.items()}


def _ends(raw: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    base, content, style = (raw[name].mean(0) for name in ENDS)
    return base, torch.stack([content[0], style[1]])
