"""SSR-Merge: least squares in rank space, on each LoRA's activations at its own prompt."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..lora.factors import LoraFactors
from ..lora.merged import MergedLoRA
from ..lora.pair import ModulePair, scaled
from .rank_moments import RankMoments
from .settings import Merged, MergeSettings, to_rank, weighted

AVERAGE_LIKE = 0.6
"""Reproduced share up to which a merge is called average-like; unrelated LoRAs' average has 0.5."""
_NAMED = 5


def rank_space(sources: MergedLoRA, settings: MergeSettings) -> Merged:
    """Keep each LoRA's full output on its own inputs (SSR-Merge, arXiv:2606.10617).

        min_Y Σ_k E_k ‖Y down x − w_k up_k down_k x‖²   →   Y = [w_c up_c , w_s up_s] · Router

    with Router `(R, R)` of `RankMoments.router`. LoRA k's rows of the Router multiply its up alone,
    so they are folded into its down: down_k' = Router_k [down_c ; down_s]. The merge is an exact
    LoRA of rank r_c + r_s. Its strengths have the same meaning as the weights before the merge, as
    the moments are those of the LoRAs without w.

    A module without usable moments is joined exactly, and named in the report.
    """
    joined = weighted(sources, settings)
    pairs: dict[str, ModulePair] = {}
    figures: list[tuple[float, float, float]] = []
    unknown: list[str] = []
    for done, (name, pair) in enumerate(joined.pairs.items()):
        settings.on_module(done, len(joined.pairs))
        moments = settings.moments.get(name) if pair.shared else None
        router = moments.router() if moments else None
        if moments and router is not None:
            figures.append(_figures(moments, router))
            pair = _routed(moments, router, (settings.content_weight, settings.style_weight))
        elif pair.shared:
            unknown.append(name)
        pairs[name] = pair
    merged, lines = to_rank(replace(joined, pairs=pairs), settings.rank)
    return merged, [*_figure_lines(figures), *_unknown_lines(unknown), *lines]


def _routed(moments: RankMoments, router: Tensor, weights: tuple[float, float]) -> ModulePair:
    """Fold the Router into the down factors."""
    down = moments.down.cpu()
    mixed = (router @ down.flatten(1).double()).float().view_as(down)

    def half(factors: LoraFactors | None, rows: slice, weight: float) -> LoraFactors:
        assert factors
        return scaled({"": replace(factors, down=mixed[rows].clone())}, weight)[""]

    content, style = map(half, moments.pair.factors, moments.rows, weights)
    return ModulePair(content, style)


def _figures(moments: RankMoments, router: Tensor) -> tuple[float, float, float]:
    """Return tr(Router)/R, and the shares of both LoRAs that the merge and the sum reproduce."""
    plain = torch.eye(len(router), dtype=router.dtype)
    share = float(router.diagonal().mean())
    return share, moments.reproduced(router), moments.reproduced(plain)


def _figure_lines(figures: list[tuple[float, float, float]]) -> list[str]:
    """Report the merge's distance from the sum, and how much of the LoRAs both reproduce."""
    if not figures:
        return []
    shares, ours, plain = zip(*figures, strict=True)
    reproduced = sum(ours) / len(ours)
    lines = [
        f"tr(Router)/R: mean {sum(shares) / len(shares):.2f}, min {min(shares):.2f}, max "
        f"{max(shares):.2f} (the sum: 1)",
        f"reproduced by a layer of the LoRAs' outputs on the calibration samples: mean "
        f"{reproduced:.0%}, min {min(ours):.0%} (the sum: mean {sum(plain) / len(plain):.0%})",
    ]
    if reproduced <= AVERAGE_LIKE:
        lines.append(
            "average-like: both LoRAs get the same inputs, and each has about half its strength. "
            "Connect joint_conditioning to keep their strength, or raise both weights."
        )
    return lines


def _unknown_lines(names: list[str]) -> list[str]:
    if not names:
        return []
    others = f" and {len(names) - _NAMED} others" if len(names) > _NAMED else ""
    return [
        f"WARNING: {len(names)} modules without usable activations (none, or not finite) are "
        f"merged as with direct: {', '.join(names[:_NAMED])}{others}"
    ]
