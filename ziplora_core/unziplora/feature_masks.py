"""UnZipLoRA's feature masks: the output features of each LoRA, and the schedule of choices."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import problem
from ..lora.coefficients import CONTENT, STYLE
from ..lora.factors import UNET_PREFIX, LoraFactors
from .options import UnZipLoRASettings

OWNERS = {
    "output_blocks.0.1": CONTENT,
    "output_blocks.1.1": STYLE,
    "output_blocks.2.1": CONTENT,
    "output_blocks.3.1": STYLE,
    "output_blocks.4.1": STYLE,
    "output_blocks.5.1": STYLE,
}
"""The LoRA that has all features in a block; in all other blocks both LoRAs are sparse."""


def owners(modules: Collection[str]) -> dict[str, int]:
    """Map modules to their owner, CONTENT or STYLE; empty if the model lacks one of the blocks.

    On a model with other blocks than SDXL's the same numbers would mean other places.
    """
    by_block = [
        {name: owner for name in modules if name.startswith(f"{UNET_PREFIX}{block}_")}
        for block, owner in ((b.replace(".", "_"), owner) for b, owner in OWNERS.items())
    ]
    return {n: k for block in by_block for n, k in block.items()} if all(by_block) else {}


@dataclass(frozen=True)
class Schedule:
    """The steps at which features are chosen: at the start of each of `times` equal periods.

    After the first step of a period all features are active; the next step uses them all and
    chooses. From then on only the chosen features are active. With 600 steps and 3 times: opened
    after steps 0, 200 and 400, chosen in steps 1, 201 and 401, counted from 0, as in the public
    implementation. With `times` 0 all features are always active.
    """

    steps: int
    times: int

    def opens(self, step: int) -> bool:
        """Return whether all features become active after this step."""
        return any(step == n * self.steps // self.times for n in range(self.times))

    def chooses(self, step: int) -> bool:
        """Return whether features are chosen in this step."""
        return self.opens(step - 1)

    def choices(self, step: int) -> int:
        """Count the choices up to and including this step."""
        return sum(n * self.steps // self.times < step for n in range(self.times))

    def is_open(self, step: int) -> bool:
        """Return whether the predictions of this step use all features."""
        return not self.times or step == 0 or self.chooses(step)


def schedule(settings: UnZipLoRASettings) -> Schedule:
    """Build the schedule of a training.

    Raises:
        ZipLoRAError: too many choices for the steps, or a column_ratio outside of (0, 1].
    """
    if not settings.column_separation:
        return Schedule(settings.steps, 0)
    if not 0 < settings.column_ratio <= 1:
        raise problem(
            "column_ratio",
            found=f"{settings.column_ratio:g}",
            expected="a share above 0 and at most 1",
            advice="0.1, the authors' value, gives each LoRA a tenth of the features each time.",
        )
    if not 1 <= settings.sample_times <= settings.steps // 2:
        raise problem(
            "sample_times",
            found=f"{settings.sample_times} in {settings.steps} steps",
            expected="at least 1 and at most half the steps: each choice takes two steps",
            advice="The authors use 3 in 600 steps. Raise steps or lower sample_times.",
        )
    return Schedule(settings.steps, settings.sample_times)


def importance(factors: LoraFactors, gradient: LoraFactors, row: Tensor) -> Tensor:
    """Compute the importance of each output feature of one layer.

        score_j = Σ_i |(ΔW ∘ G)_ji|,   ΔW = up down,   G = m ⊙ (d_up down + up d_down)

    G is the first-order change of ΔW under one step along the gradient. (The public implementation
    counts the entries above 1e-5 of a gradient scaled by its loss scaler; a sum needs no such
    threshold.) Only one layer at a time is dense.

    Args:
        factors, gradient: the factors of the layer in one LoRA, and their gradients; the inputs of
            a convolution include its taps.
        row: the mergers m `(out,)` of the layer.

    Returns:
        the scores `(out,)`.
    """
    down, up, d_down, d_up = (
        part.flatten(1) for f in (factors, gradient) for part in (f.down, f.up)
    )
    change = d_up @ down + up @ d_down  # (out, in)
    return row.abs() * (up @ down * change).abs().sum(1)


class FeatureMasks:
    """The feature masks: for each module `(2, out)`, row CONTENT and row STYLE; empty at first.

    They lie in one flat tensor, in the order of the mergers; each choice makes a new tensor.

    Args:
        heights: the number of output features by module.
        owned: the owner by module, see `owners`.
        device: the device of the mergers.
    """

    def __init__(
        self, heights: Mapping[str, int], owned: Mapping[str, int], device: torch.device | str
    ) -> None:
        self.heights, self.owned = dict(heights), dict(owned)
        size = 2 * sum(self.heights.values())
        self.set(torch.zeros(size, dtype=torch.bool, device=device))

    def set(self, flat: Tensor) -> None:
        """Replace all masks."""
        self.flat = flat
        both = [mask.all(0).expand(2, -1).reshape(-1) for mask in self.by_module().values()]
        self.overlap = torch.cat(both)
        """Features of both LoRAs, true in both rows."""
        self.chosen = bool(flat.any())
        """False before the first choice, when all features are active."""

    def detached(self) -> FeatureMasks:
        """Copy the masks to the CPU."""
        copied = FeatureMasks(self.heights, self.owned, "cpu")
        copied.set(self.flat.to("cpu", copy=True))
        return copied

    def by_module(self) -> dict[str, Tensor]:
        """View the masks by module."""
        return self.views(self.flat)

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """View a flat tensor of this layout by module, `(2, out)`."""
        pieces = flat.split([2 * height for height in self.heights.values()])
        return {name: piece.view(2, -1) for name, piece in zip(self.heights, pieces, strict=True)}

    def extend(self, scores: Mapping[str, Tensor], share: float, disjoint: bool) -> None:
        """Give each LoRA further features, those with the highest scores, up to its share.

        In blocks that neither LoRA owns, the two share no feature (content chooses first), so each
        has at most half of them. In its own blocks a LoRA has all features; the other LoRA has its
        share of them, or none with `disjoint`.

        Args:
            scores: the importance `(2, out)` by module.
            share: the share of the features that a LoRA has after this choice.
            disjoint: whether an owned block leaves the other LoRA no features.
        """
        flat = self.flat.to("cpu", copy=True)  # reading it per layer does not synchronise there
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
