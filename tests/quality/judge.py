"""The judge that needs no encoder, held against the probes: what it sees, and what fools it.

All variants of the judge are made of a few products, kept for every picture and noise level: the
noise and the LoRAs' predictions as vectors less the base's prediction, multiplied with each other.
So every choice of levels can be tried without another evaluation.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from itertools import pairwise

from sandbox.commands import say
from sandbox.paths import ROOT, use_comfyui

use_comfyui()
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

import torch  # noqa: E402
from comfy.model_patcher import ModelPatcher  # noqa: E402
from comfy.samplers import calculate_sigmas  # noqa: E402
from torch import Tensor  # noqa: E402

from miniworld.parts import GUIDANCE, STEPS, load_parts  # noqa: E402
from miniworld.probe_files import load_probes  # noqa: E402
from miniworld.scenes import SIDE, Scene, render  # noqa: E402
from miniworld.styles import Style  # noqa: E402
from ziplora_core.files.writer import kohya_tensors  # noqa: E402

from . import cache  # noqa: E402
from .conditions import AS_MADE, CONDITIONS, STRENGTHS  # noqa: E402
from .experiment import PICTURES, SEED, Bench, as_bytes, make_bench  # noqa: E402
from .measure import denoised  # noqa: E402
from .methods import CLOSED_FORM, DIRECT, NULL_SPACE  # noqa: E402
from .subjects import JOINT_PROMPT, TUNING, Pair  # noqa: E402

LEVELS = (0.1, 0.2, 0.3, 0.35, 0.45, 0.55, 0.65, 0.7, 0.8, 0.9)
"""Parts of the schedule; the node's four draws are among them."""
NODE = (3, 4, 5, 6)
"""The node's levels, by their places."""
ENDS = ("base model", "content LoRA alone", "style LoRA alone")
"""Where the scale is 0 and 1."""
MERGES = (NULL_SPACE, CLOSED_FORM)
COMPOSED = "composed predictions"


@dataclass
class Judged:
    """A pair's cells: what the probes say of each picture, and the products of the judge.

    Args:
        figures: subject, style and both right of each picture, by cell.
        products: `(picture, level, 3, 3)` by cell: content − base, style − base and noise − base,
            multiplied with each other, in means over the latent.
    """

    pair: Pair
    figures: dict[str, Mapping[str, list[float]]] = field(default_factory=dict)
    products: dict[str, Tensor] = field(default_factory=dict)


def run(workers: Executor, pairs: Sequence[Pair]) -> list[Judged]:
    """Draw and judge the cells of every pair."""
    return list(workers.map(judge_pair, pairs))


def judge_pair(pair: Pair) -> Judged:
    """Judge a pair's pictures: strengths of the direct merge, and what may fool the judge.

    Test pairs are not merged in other ways here: their table is drawn once, at the end.
    """
    torch.set_num_threads(1)
    bench = make_bench(load_parts(), pair, load_probes())
    judged = Judged(pair)
    kinds = (*ENDS, *(MERGES if pair in TUNING else ()))
    cells: dict[str, Callable[[], cache.State]] = {
        **{name: lambda m=name: bench.joint(m, CONDITIONS[AS_MADE]) for name in kinds},
        **{name: lambda c=c: bench.joint(DIRECT, c) for name, c in STRENGTHS.items()},
        COMPOSED: lambda: composed(bench),
        **{name: lambda p=p: _shown(bench, p) for name, p in real_pictures(pair).items()},
    }
    for name, make in cells.items():
        cell = make()
        judged.figures[name] = {n: cell[n] for n in ("subject", "style", "both right")}
        judged.products[name] = products(bench, cell["pictures"])
    say(f"judged: {pair.name}")
    return judged


def real_pictures(pair: Pair) -> dict[str, Tensor]:
    """Draw by code what the joint picture should be, and what it should not be."""
    seen = Style("ocean", "plain")
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
        parts, loras = bench.task.parts, bench.task.loras
        latents = parts.vae.encode(pictures.movedim(1, -1).float() / 255)
        latents = parts.model.model.process_latent_in(latents)
        models = [parts.model] + [
            parts.with_lora(kohya_tensors(lora.modules)) for lora in (loras.content, loras.style)
        ]
        sigmas = parts.model.model.model_sampling.sigmas
        generator = torch.Generator().manual_seed(7)
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

    return cache.cached("judged", {**bench.inputs("judge"), "pictures": pictures}, make)["products"]


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
        parts, loras = bench.task.parts, bench.task.loras
        of_content, of_style = (
            parts.with_lora(kohya_tensors(lora.modules)) for lora in (loras.content, loras.style)
        )
        joint, empty = parts.encode(JOINT_PROMPT), parts.encode("")
        sigmas = calculate_sigmas(parts.model.model.model_sampling, "normal", STEPS)
        generator = torch.Generator().manual_seed(SEED)
        x = torch.randn(PICTURES, 12, SIDE // 8, SIDE // 8, generator=generator)
        x *= (1 + sigmas[0].square()).sqrt()
        for sigma, after in pairwise(sigmas):
            at = sigma.expand(PICTURES)
            nothing = predicted_noise(parts.model, x, at, empty)
            base, content, style = (
                predicted_noise(m, x, at, joint) for m in (parts.model, of_content, of_style)
            )
            noise = nothing + GUIDANCE * (content + style - base - nothing)
            x = x + (after - sigma) * noise
        drawn = parts.vae.decode(x).movedim(-1, 1).clamp(0, 1)
        return {**bench.measured(drawn), "pictures": as_bytes(drawn)}

    return cache.cached("joint", bench.inputs("composed"), make)


def amounts(kept: Tensor, levels: Sequence[int] = NODE) -> Tensor:
    """Solve for the amounts `(picture, 2)` of content and style, over these levels."""
    whole = kept[:, list(levels)].double().sum(1)
    return torch.linalg.solve(whole[:, :2, :2], whole[:, :2, 2])


def scores(judged: Judged, levels: Sequence[int] = NODE) -> dict[str, Tensor]:
    """Scale all amounts `(picture, 2)`: the base model's pictures 0, each LoRA's own 1."""
    raw = {name: amounts(kept, levels) for name, kept in judged.products.items()}
    zero = raw["base model"].mean(0)
    alone = [raw[f"{name} LoRA alone"].mean(0)[n] for n, name in enumerate(("content", "style"))]
    one = torch.stack(alone)
    return {name: (value - zero) / (one - zero) for name, value in raw.items()}


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """Rank correlation (Spearman 1904)."""
    ranks = torch.stack([torch.tensor(v).double().argsort().argsort().double() for v in (a, b)])
    return float(torch.corrcoef(ranks)[0, 1])


def chosen(sums: Mapping[str, float], by: Mapping[str, float]) -> float:
    """Return what choosing by a measure loses against the best, in the sum of both."""
    return max(sums.values()) - sums[max(by, key=lambda name: by[name])]
