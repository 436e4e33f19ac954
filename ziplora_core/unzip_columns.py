"""Which output features of a layer each of UnZipLoRA's two LoRAs has, and when that is decided."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .coefficients import CONTENT, STYLE
from .errors import problem
from .lora import UNET_PREFIX, LoraFactors
from .options import UnZipSettings

OWNERS = {
    "output_blocks.0.1": CONTENT,
    "output_blocks.1.1": STYLE,
    "output_blocks.2.1": CONTENT,
    "output_blocks.3.1": STYLE,
    "output_blocks.4.1": STYLE,
    "output_blocks.5.1": STYLE,
}
"""Whose every feature counts in a block; in all others both LoRAs are sparse."""


def owners(modules: Collection[str]) -> dict[str, int]:
    """Say which modules are CONTENT's and which STYLE's; nobody's where a block is missing.

    On a model with other blocks than SDXL's the same numbers mean other places.
    """
    by_block = [
        {name: owner for name in modules if name.startswith(f"{UNET_PREFIX}{block}_")}
        for block, owner in ((b.replace(".", "_"), owner) for b, owner in OWNERS.items())
    ]
    return {n: k for block in by_block for n, k in block.items()} if all(by_block) else {}


@dataclass(frozen=True)
class Schedule:
    """When features are chosen: `times` equal periods, each of which begins with a choice.

    After its first step all features are let in, the next one sees them all and chooses; then
    only what was chosen is in. (600 steps, 3 times: let in at 0, 200 and 400, chosen at 1, 201 and
    401, by steps counted from 0, as in the public implementation.) Never: all features, always.
    """

    steps: int
    times: int

    def opens(self, step: int) -> bool:
        """Whether all features are let in again after this step."""
        return any(step == n * self.steps // self.times for n in range(self.times))

    def recalibrates(self, step: int) -> bool:
        """Whether features are chosen in this step."""
        return self.opens(step - 1)

    def choices(self, step: int) -> int:
        """How many choices there are up to this step, its own included."""
        return sum(n * self.steps // self.times < step for n in range(self.times))

    def is_open(self, step: int) -> bool:
        """Whether this step's predictions see all features."""
        return not self.times or step == 0 or self.recalibrates(step)


def schedule(settings: UnZipSettings) -> Schedule:
    """Make the schedule of a training.

    Raises:
        ZipLoRAError: too many choices for the steps, or a share that is none.
    """
    if not settings.column_separation:
        return Schedule(settings.steps, 0)
    if not 0 < settings.column_ratio <= 1:
        raise problem(
            "column_ratio",
            found=f"{settings.column_ratio:g}",
            expected="a share above 0 and at most 1",
            advice="0.1, the authors' value, gives each LoRA a tenth of the features every time.",
        )
    if not 1 <= settings.sample_times <= settings.steps // 2:
        raise problem(
            "sample_times",
            found=f"{settings.sample_times} in {settings.steps} steps",
            expected="at least 1 and at most half the steps: each time takes two of them",
            advice="3 in 600 steps are the authors'; raise steps or lower sample_times.",
        )
    return Schedule(settings.steps, settings.sample_times)


def importance(factors: LoraFactors, gradient: LoraFactors, row: Tensor) -> Tensor:
    """Score the output features of one layer by what the update and its change have in common.

        score_j = Σ_i |(ΔW ∘ G)_ji|,   ΔW = up down,   G = m ⊙ (d_up down + up d_down)

    G is the first-order change of ΔW under one step along the gradient. (The public implementation
    counts the entries above 1e-5 of a gradient that its scaler has multiplied; a sum needs no
    scale.) One dense layer at a time.

    Args:
        factors, gradient: of one LoRA's layer; the inputs of a convolution are all its taps'.
        row: its mergers m `(out,)`.

    Returns:
        `(out,)`.
    """
    down, up, d_down, d_up = (
        part.flatten(1) for f in (factors, gradient) for part in (f.down, f.up)
    )
    change = d_up @ down + up @ d_down  # (out, in)
    return row.abs() * (up @ down * change).abs().sum(1)


class Columns:
    """The masks: for each module `(2, out)`, row CONTENT and row STYLE, nothing chosen at first.

    They lie in one flat tensor, in the order of the mergers; each choice makes a new one.

    Args:
        heights: output features by module.
        owned: see `owners`.
        device: of the mergers.
    """

    def __init__(
        self, heights: Mapping[str, int], owned: Mapping[str, int], device: torch.device | str
    ) -> None:
        self.heights, self.owned = dict(heights), dict(owned)
        size = 2 * sum(self.heights.values())
        self.set(torch.zeros(size, dtype=torch.bool, device=device))

    def set(self, flat: Tensor) -> None:
        """Take these masks from now on."""
        self.flat = flat
        both = [mask.all(0).expand(2, -1).reshape(-1) for mask in self.masks().values()]
        self.overlap = torch.cat(both)
        """Features that both LoRAs have: true in both rows."""
        self.chosen = bool(flat.any())
        """Before the first choice all features count."""

    def detached(self) -> Columns:
        """Copy them as they are, on the CPU."""
        copied = Columns(self.heights, self.owned, "cpu")
        copied.set(self.flat.to("cpu", copy=True))
        return copied

    def masks(self) -> dict[str, Tensor]:
        """View the masks by module."""
        return self.views(self.flat)

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """View any flat tensor of this layout by module, `(2, out)`."""
        pieces = flat.split([2 * height for height in self.heights.values()])
        return {name: piece.view(2, -1) for name, piece in zip(self.heights, pieces, strict=True)}

    def extend(self, scores: Mapping[str, Tensor], share: float, disjoint: bool) -> None:
        """Choose more features for each LoRA, those of the highest scores, until it has its share.

        Where nobody owns the block, none that the other one has (content first), so at most half of
        them. The owner of a block has all; `disjoint`: and the other one none.

        Args:
            scores: `(2, out)` by module.
            share: of the features, that a LoRA has in the end.
            disjoint: see above.
        """
        flat = self.flat.to("cpu", copy=True)  # where to ask each layer is not to wait
        joined = torch.cat([scores[name].flatten() for name in self.heights]).cpu()
        scores = self.views(joined)
        for name, mask in self.views(flat).items():
            owner, out = self.owned.get(name), mask.shape[1]
            for half in (CONTENT, STYLE):
                if half == owner:
                    mask[half] = True
                elif owner is None or not disjoint:
                    taken = mask.any(0) if owner is None else mask[half]
                    most = out // 2 if owner is None else out
                    wanted = min(max(1, round(share * out)), most) - int(mask[half].sum())
                    left = scores[name][half].masked_fill(taken, -torch.inf)
                    mask[half, left.topk(max(wanted, 0)).indices] = True
        self.set(flat.to(self.flat.device))
