"""The entries of a LoRA's update: how they are distributed, and the update without the smallest."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import problem
from .lora import LoraFactors
from .low_rank import squared_norm

SHARES = (0.8, 0.9)
"""Shares of the entries that the paper leaves out (Shah et al. 2023, arXiv:2311.13600, Fig. 2)."""
_BINS = 1024  # a multiple of 4, to be halved around the middle


@dataclass(frozen=True)
class WeightEntries:
    """How often the updates of a LoRA have entries of which size.

    Args:
        counts: `(bins,)` int64, of equal bins from −reach to reach.
        reach: where the bins end; more than the largest entry.
        largest: the largest |entry|.
        modules: how many there are.
        kept: ‖delta without its smallest entries‖_F / ‖delta‖_F over all modules, by the share of
            each module's entries that is left out.
    """

    counts: Tensor
    reach: float
    largest: float
    modules: int
    kept: Mapping[float, float]

    @property
    def total(self) -> int:
        return int(self.counts.sum())


def check_share(share: float) -> None:
    """Refuse what is no share of the entries.

    Raises:
        ZipLoRAError: outside of 0…1.
    """
    if not 0 <= share <= 1:
        raise problem(
            "prune",
            found=share,
            expected="a share of the entries between 0 and 1",
            advice="0.8 leaves out the smallest four fifths, as in the paper.",
        )


def pruned(delta: Tensor, share: float) -> Tensor:
    """Zero the entries of an update that are smallest in size: ⌊share · entries⌋ of them, exactly.

    Of equal ones at the limit, those that come first (row by row) are zeroed, so the result is the
    same on every device.

    Args:
        delta: the dense update of one module, any shape; it is not changed.
        share: 0 leaves it as it is, 1 leaves nothing.

    Raises:
        ZipLoRAError: a share outside of 0…1.
    """
    check_share(share)
    count = int(share * delta.numel() + 1e-6)  # 0.7 · 10 is 7, whatever its rounding
    if count == 0:
        return delta
    size = delta.abs().flatten()
    limit = torch.kthvalue(size, count).values
    drop = size < limit
    ties = (size == limit).nonzero().flatten()
    drop[ties[: count - int(drop.sum())]] = True
    return delta.masked_fill(drop.view_as(delta), 0.0)


def count_entries(
    modules: Mapping[str, LoraFactors],
    device: torch.device | str = "cpu",
    on_module: Callable[[int, int], None] = lambda done, total: None,
) -> WeightEntries:
    """Count the entries of all updates by size, one dense update at a time.

    The bins are doubled in width whenever an update reaches further, so one pass is enough.

    Args:
        modules: at least one.
        device: where the dense updates are formed.
        on_module: told before each module how many of how many are done.
    """
    counts, reach, largest = torch.zeros(_BINS, dtype=torch.int64), 2.0**-40, 0.0
    norm, kept = 0.0, dict.fromkeys(SHARES, 0.0)
    for done, (name, factors) in enumerate(modules.items()):
        on_module(done, len(modules))
        on = LoraFactors(factors.down.to(device), factors.up.to(device), factors.alpha)
        delta = on.delta()
        reaches = float(delta.abs().max())
        if not math.isfinite(reaches):
            raise problem(
                "lora",
                found=f"an update that is not finite, in {name}",
                expected="numbers that float32 holds",
                advice="The file is damaged, or its training broke down. Use another one.",
            )
        largest = max(largest, reaches)
        while reach <= largest:
            counts = F.pad(counts.view(-1, 2).sum(1), (_BINS // 4, _BINS // 4))
            reach *= 2
        counts += torch.histc(delta, _BINS, -reach, reach).to("cpu", torch.int64)
        norm += squared_norm(delta)
        for share in kept:
            kept[share] += squared_norm(pruned(delta, share))
    on_module(len(modules), len(modules))
    kept = {share: (part / norm) ** 0.5 if norm else 1.0 for share, part in kept.items()}
    return WeightEntries(counts, reach, largest, len(modules), kept)
