"""SSR-Merge: least squares in rank space, on what each LoRA sees at its own prompt."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ..lora import LoraFactors
from ..merge import MergedLoRA
from ..pairing import ModulePair, scaled
from ..rank_moments import RankMoments
from .settings import Merged, MergeSettings, to_rank, weighted

AVERAGE_LIKE = 0.6
"""Share reproduced up to which a merge is called so; the average of unrelated LoRAs has 0.5."""
_NAMED = 5


def rank_space(sources: MergedLoRA, settings: MergeSettings) -> Merged:
    """Let each LoRA answer in full to its own inputs (SSR-Merge, arXiv:2606.10617).

        min_Y Σ_k E_k ‖Y down x − w_k up_k down_k x‖²   →   Y = [w_c up_c , w_s up_s] · Router

    with Router `(R, R)` of `RankMoments.router`. The rows of the Router that belong to LoRA k meet
    its up alone, so they are folded into its down: down_k' = Router_k [down_c ; down_s]. The merge
    is an exact LoRA of rank r_c + r_s, and both strengths mean after it what the weights meant
    before it: the moments are those of the LoRAs without w.

    A module whose moments cannot be used is joined exactly, and named.
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
    """Fold the Router into the downs."""
    down = moments.down.cpu()
    mixed = (router @ down.flatten(1).double()).float().view_as(down)

    def half(factors: LoraFactors | None, rows: slice, weight: float) -> LoraFactors:
        assert factors
        return scaled({"": replace(factors, down=mixed[rows].clone())}, weight)[""]

    content, style = map(half, moments.pair.factors, moments.rows, weights)
    return ModulePair(content, style)


def _figures(moments: RankMoments, router: Tensor) -> tuple[float, float, float]:
    """tr(Router)/R, and what is reproduced of both LoRAs by the merge and by the plain sum."""
    plain = torch.eye(len(router), dtype=router.dtype)
    share = float(router.diagonal().mean())
    return share, moments.reproduced(router), moments.reproduced(plain)


def _figure_lines(figures: list[tuple[float, float, float]]) -> list[str]:
    """Say how far the merge is from the sum, and what that is good for."""
    if not figures:
        return []
    shares, ours, plain = zip(*figures, strict=True)
    reproduced = sum(ours) / len(ours)
    lines = [
        f"tr(Router)/R: mean {sum(shares) / len(shares):.2f}, min {min(shares):.2f}, max "
        f"{max(shares):.2f} (the sum: 1)",
        f"of what the LoRAs add where they were looked at, a layer reproduces {reproduced:.0%} on "
        f"average, {min(ours):.0%} at least (the sum: {sum(plain) / len(plain):.0%})",
    ]
    if reproduced <= AVERAGE_LIKE:
        lines.append(
            "average-like: both LoRAs see the same, and each counts about half. Connect "
            "joint_conditioning to hold their strength, or raise both weights."
        )
    return lines


def _unknown_lines(names: list[str]) -> list[str]:
    if not names:
        return []
    others = f" and {len(names) - _NAMED} others" if len(names) > _NAMED else ""
    return [
        f"WARNING: {len(names)} modules saw nothing, or numbers that are not finite, and are "
        f"joined directly: {', '.join(names[:_NAMED])}{others}"
    ]
