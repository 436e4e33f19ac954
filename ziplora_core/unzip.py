"""UnZipLoRA's objective, ready for the training loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .branches import Gates
from .coefficients import CONTENT
from .dreambooth import INSTANCE, Draw, Example, NoisingModel, PictureObjective
from .framing import Framing
from .lora import LoraFactors
from .merge import MergedLoRA
from .objective import similarity_penalty
from .options import UnZipSettings
from .pairing import pair_modules
from .unzip_columns import Columns, Schedule, importance, schedule
from .unzip_parameters import UnZipParameters

_IMPORTANCE = 41  # a stream of draws of its own
_MASKS = "masks"
CONCEPTS = ("content", "style")


@dataclass
class UnZipObjective(PictureObjective[UnZipSettings]):
    """L = MSE(joint) + λ mean_layers mean_j |m_c,j M_c,j m_s,j M_s,j| + w · MSE(class)

    UnZipLoRA (arXiv:2412.04465): one prediction a step, in which each LoRA reads its own prompt
    where the model reads the joint one. Class pictures (the authors' own prior preservation cannot
    run) take the same way with both LoRAs at the class prompt, so that neither forgets it.

    Args:
        model: with the branches of `learned` on it.
        learned: both LoRAs.
        columns: which features each of them has.
        instances: the picture or pictures, all at the joint prompt.
        classes: pictures of the class, empty for no prior preservation.
        conditioner: encodes (caption, framing) pairs.
        prompts: what content and style read, `(2, token, width)`, by the caption of a sample.
        settings: the node's.
    """

    model: NoisingModel
    learned: UnZipParameters
    columns: Columns
    instances: Sequence[Example]
    classes: Sequence[Example]
    conditioner: Callable[[Sequence[tuple[str, Framing]]], Sequence[Any]]
    prompts: Mapping[str, Tensor]
    settings: UnZipSettings
    weight_decay = 1e-4
    _open: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.schedule: Schedule = schedule(self.settings)

    @property
    def parameters(self) -> list[Tensor]:
        return self.learned.leaves

    @property
    def carried(self) -> dict[str, Tensor]:
        """The features chosen so far."""
        return {_MASKS: self.columns.flat}

    def carry(self, tensors: Mapping[str, Tensor]) -> None:
        self.columns.set(tensors[_MASKS].to(self.columns.flat.device))

    def after_step(self) -> None:
        """Keep the mergers in 0…1 where both LoRAs have a feature, and at 1 elsewhere."""
        mergers = self.learned.mergers.flat
        with torch.no_grad():
            mergers.copy_(mergers.clamp(0, 1).where(self.columns.overlap, 1.0))

    def gates(self, draws: Sequence[Draw]) -> Gates:
        """Both LoRAs are fully open; each reads its own prompt."""
        return Gates(prompts=torch.stack([self.prompts[draw.caption] for draw in draws]))

    def alike(self, draw: Draw) -> tuple[Any, ...]:
        """Also the length of the prompts."""
        return (*super().alike(draw), len(self.prompts[draw.caption][CONTENT]))

    def rows(self, mergers: bool = True) -> dict[str, Tensor]:
        """The factors g `(2, out)` of each layer's output features: m · M, or M alone.

        In steps that look for features, and before the first choice, M is one and m is not trained.
        """
        m = self.learned.mergers.flat if mergers else torch.ones_like(self.learned.mergers.flat)
        if self._open or not self.columns.chosen:
            return self.columns.views(m.detach())
        weighed = m if self.settings.mergers == "learned" else m.detach()
        return self.columns.views(weighed * self.columns.flat)

    def fold(self, mergers: bool = True) -> None:
        """Put the present factors into the branches; without `mergers` as each LoRA is alone."""
        self.learned.fold(self.model.dtype, self.rows(mergers))

    def backward(self, step: int) -> dict[str, Tensor]:
        """Add one step's gradient to factors and mergers, and choose features if it is time."""
        self._open = self.schedule.is_open(step)
        try:
            scores = self._importance(step) if self.schedule.recalibrates(step) else {}
            terms = super().backward(step)
            penalty = torch.zeros_like(terms["loss"])
            if not self._open and self.settings.mergers == "learned":
                penalty = self._separate()
        finally:
            self._open = False
        if scores:
            share = self.settings.column_ratio * self.schedule.choices(step)
            self.columns.extend(scores, share, disjoint=self.settings.mergers == "disjoint")
        loss = terms.pop("loss") + self.settings.similarity_weight * penalty
        return {"loss": loss, **terms, "penalty": penalty}

    def factors(self) -> dict[str, LoraFactors]:
        """Both LoRAs as one: what any loader can add to a model."""
        return self.merged().modules()

    def parts(self) -> dict[str, dict[str, LoraFactors]]:
        """Copy content and style out, each for use without the other: no mergers."""
        alone = self.learned.detached(self.rows(mergers=False))
        return dict(zip(CONCEPTS, alone, strict=True))

    def merged(self) -> MergedLoRA:
        """Copy both out for use together, the mergers folded in."""
        return MergedLoRA(pair_modules(*self.learned.detached(self.rows())), prompt_separated=True)

    def _separate(self) -> Tensor:
        """Add the gradient of the penalty; only features that both LoRAs have are weighed."""
        mergers, rows = self.learned.mergers.flat, self.rows()
        unused = {name: row[CONTENT].detach() for name, row in rows.items()}
        penalty = similarity_penalty("dot_mean", rows, unused) / len(rows)
        (self.settings.similarity_weight * penalty).backward()
        assert mergers.grad is not None
        mergers.grad *= self.columns.overlap
        return penalty.detach()

    def _importance(self, step: int) -> dict[str, Tensor]:
        """Score every feature of every layer `(2, out)` by the sum over a few draws of their own.

        One draw is one timestep: too little to choose by (the public implementation does).
        """
        count = self.settings.importance_samples
        scores: dict[str, Tensor] = {}
        for number in range(step * count, (step + 1) * count):
            self.fold()
            draw = self._draw(self.instances, INSTANCE, number, _IMPORTANCE)
            self._errors([draw]).sum().backward()
            for name, found in self._scores().items():
                scores[name] = scores[name] + found if name in scores else found
            for leaf in self.parameters:
                leaf.grad = None
        return scores

    @torch.no_grad()
    def _scores(self) -> dict[str, Tensor]:
        """Score them by the present gradient."""
        halves = [(half.factors(), half.gradient()) for half in self.learned.halves]
        return {
            name: torch.stack(
                [
                    importance(factors[name], gradient[name], row)
                    for (factors, gradient), row in zip(halves, rows, strict=True)
                ]
            )
            for name, rows in self.rows().items()
        }
