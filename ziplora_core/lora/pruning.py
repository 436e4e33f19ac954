"""Distribution of the entries of a LoRA's updates, and pruning of the smallest entries."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import problem
from .factors import LoraFactors
from .svd import squared_norm

SHARES = (0.8, 0.9)
"""Shares of the entries that the paper zeroes (Shah et al. 2023, arXiv:2311.13600, Fig. 2)."""
_BINS = 1024  # a multiple of 4: when the range doubles, half of the bins hold all counts


@dataclass(frozen=True)
class WeightEntries:
    """Histogram of the entries of a LoRA's updates.

    Args:
        counts: `(bins,)` int64, counts in equal bins from −reach to reach.
        reach: limit of the bins, larger than the largest entry.
        largest: the largest |entry|.
        modules: number of modules.
        kept: ‖delta without its smallest entries‖_F / ‖delta‖_F over all modules, by the share of
            each module's entries that is set to zero.
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
    """Refuse a share outside of 0…1.

    Raises:
        ZipLoRAError: the share is outside of 0…1.
    """
    if not 0 <= share <= 1:
        raise problem(
            "prune",
            found=share,
            expected="a share of the entries between 0 and 1",
            advice="0.8 leaves out the smallest four fifths, as in the paper.",
        )


def pruned(delta: Tensor, share: float) -> Tensor:
    """Set the entries of smallest magnitude to zero, exactly ⌊share · entries⌋ of them.

    Among entries of equal magnitude at the limit, the first ones (row by row) are set to zero, so
    the result is the same on every device.

    Args:
        delta: the dense update of one module, any shape; it is not modified.
        share: share of the entries, from 0 (unchanged) to 1 (all zero).

    Raises:
        ZipLoRAError: the share is outside of 0…1.
    """
    check_share(share)
    count = int(share * delta.numel() + 1e-6)  # 0.7 · 10 is 7 in spite of rounding
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
    """Count the entries of all updates by value, one dense update at a time.

    The bins double in width whenever an update exceeds their range, so one pass is enough.

    Args:
        modules: factors by module name, at least one module.
        device: device on which the dense updates are computed.
        on_module: called with (modules done, total) before each module and at the end.

    Raises:
        ZipLoRAError: an update is not finite.
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
                found=f"an update that is not finite in {name}",
                expected="finite numbers in float32",
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
