"""UnZipLoRA's objective for the training loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..dreambooth.objective import INSTANCE, Draw, NoisingModel, PictureObjective, TrainingExample
from ..lora.coefficients import CONTENT, STYLE
from ..lora.factors import LoraFactors
from ..lora.merged import MergedLoRA
from ..lora.pair import pair_modules
from ..training.branches import Gates
from ..training.framing import Framing
from ..training.losses import similarity_penalty
from ..training.random import Stream, generator
from ..training.saved_state import Layout
from .feature_masks import FeatureMasks, Schedule, importance, schedule
from .options import UnZipLoRASettings
from .parameters import UnZipLoRAParameters

_MASKS = "masks"
_WHOSE = 2
"""Key of the draws that say which LoRAs learn a sample."""
CONCEPTS = ("content", "style")


@dataclass(frozen=True)
class UnZipLoRADraw(Draw):
    """A noisy picture, and which LoRAs learn it.

    Args:
        alone: CONTENT or STYLE, whose prompt is then the caption; None for both.
    """

    alone: int | None = None


@dataclass
class UnZipLoRAObjective(PictureObjective[UnZipLoRASettings]):
    """The loss of UnZipLoRA (arXiv:2412.04465), with samples of each LoRA alone and optional prior
    preservation.

        L = (1 − a) MSE(joint) + a/2 MSE(content) + a/2 MSE(style)
            + λ mean_layers mean_j |m_c,j M_c,j m_s,j M_s,j| + w · MSE(class)

    m are the mergers, M the feature masks. Joint samples make one prediction, in which each LoRA
    reads its own prompt where the model reads the joint one. They alone are the published loss: it
    asks of the sum of both LoRAs only, so whichever learns faster takes what both could learn, and
    neither draws its half alone. So a share a of the samples is learned by one LoRA without the
    other and without mergers, at its own prompt, as it is used alone. Class pictures use both LoRAs
    at the class prompt, so that neither forgets the class (the authors' own prior preservation
    cannot run).

    Args:
        model: a model with the branches of `learned` on it.
        learned: both LoRAs and their mergers.
        masks: the feature masks.
        instances: the picture or pictures, all at the joint prompt.
        classes: the class pictures, empty for no prior preservation.
        conditioner: an encoder of (caption, framing) pairs.
        prompts: the prompts of content and style, `(2, token, width)`, by the caption of a sample.
        settings: the widgets of the node.
    """

    model: NoisingModel
    learned: UnZipLoRAParameters
    masks: FeatureMasks
    instances: Sequence[TrainingExample]
    classes: Sequence[TrainingExample]
    conditioner: Callable[[Sequence[tuple[str, Framing]]], Sequence[Any]]
    prompts: Mapping[str, Tensor]
    settings: UnZipLoRASettings
    weight_decay = 1e-4
    _open: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.schedule: Schedule = schedule(self.settings)

    @property
    def parameters(self) -> list[Tensor]:
        return self.learned.leaves

    @property
    def extra_state(self) -> dict[str, Tensor]:
        """The feature masks so far."""
        return {_MASKS: self.masks.flat}

    def extra_layout(self, step: int) -> dict[str, Layout]:
        return {_MASKS: (tuple(self.masks.flat.shape), torch.bool)}

    def load_extra_state(self, tensors: Mapping[str, Tensor]) -> None:
        self.masks.set(tensors[_MASKS].to(self.masks.flat.device))

    def after_step(self) -> None:
        """Keep the mergers in 0…1 where both LoRAs have a feature, and at 1 elsewhere."""
        mergers = self.learned.mergers.flat
        with torch.no_grad():
            mergers.copy_(mergers.clamp(0, 1).where(self.masks.overlap, 1.0))

    def gates(self, draws: Sequence[Draw]) -> Gates:
        """Return gates with both LoRAs fully on, each with its own prompt, or one of them."""
        prompts = torch.stack([self.prompts[draw.caption] for draw in draws])
        if all(_alone(draw) is None for draw in draws):
            return Gates(prompts=prompts)
        on = [[_alone(draw) in (None, half) for half in (CONTENT, STYLE)] for draw in draws]
        return Gates(torch.tensor(on, dtype=prompts.dtype), prompts=prompts)

    def alike(self, draw: Draw) -> tuple[Any, ...]:
        """Return the batch key of a sample: with its prompts' length, and whether it is alone."""
        alone = _alone(draw) is not None
        return (*super().alike(draw), len(self.prompts[draw.caption][CONTENT]), alone)

    def rows(self, mergers: bool = True) -> dict[str, Tensor]:
        """Compute the factors g `(2, out)` of each layer's output features: m · M, or M alone.

        In steps that use all features, and before the first choice, M is one and m is not trained.

        Args:
            mergers: whether m counts; False gives M, for a LoRA without the other.
        """
        m = self.learned.mergers.flat if mergers else torch.ones_like(self.learned.mergers.flat)
        if self._open or not self.masks.chosen:
            return self.masks.views(m.detach())
        weighed = m if self.settings.mergers == "learned" else m.detach()
        return self.masks.views(weighed * self.masks.flat)

    def fold(self, mergers: bool = True) -> None:
        """Put the current factors into the branches; without `mergers`, each LoRA as if alone."""
        self.learned.fold(self.model.dtype, self.rows(mergers))

    def backward(self, step: int) -> dict[str, Tensor]:
        """Add the gradient of one step to factors and mergers, and choose features when due."""
        self._open = self.schedule.is_open(step)
        try:
            scores = self._importance(step) if self.schedule.chooses(step) else {}
            terms = super().backward(step)
            penalty = torch.zeros_like(terms["loss"])
            if not self._open and self.settings.mergers == "learned":
                penalty = self._separate()
        finally:
            self._open = False
        if scores:
            share = self.settings.column_ratio * self.schedule.choices(step)
            self.masks.extend(scores, share, disjoint=self.settings.mergers == "disjoint")
        # Scores that are not finite choose features at random: the loop sees them in the loss.
        seen = 0.0 * sum(found.sum() for found in scores.values())
        loss = terms.pop("loss") + self.settings.similarity_weight * penalty + seen
        return {"loss": loss, **terms, "penalty": penalty}

    def factors(self) -> dict[str, LoraFactors]:
        """Join both LoRAs into one that any loader can read."""
        return self.merged().modules()

    def parts(self) -> dict[str, dict[str, LoraFactors]]:
        """Copy content and style, each for use without the other: mergers left out."""
        alone = self.learned.detached(self.rows(mergers=False))
        return dict(zip(CONCEPTS, alone, strict=True))

    def merged(self) -> MergedLoRA:
        """Copy both LoRAs for use together, mergers folded in."""
        return MergedLoRA(pair_modules(*self.learned.detached(self.rows())), prompt_separated=True)

    def _draw(
        self,
        examples: Sequence[TrainingExample],
        term: str,
        number: int,
        stream: Stream = Stream.TRAINING,
    ) -> Draw:
        """Draw sample `number`, in training also the LoRAs that learn it."""
        draw = super()._draw(examples, term, number, stream)
        if stream != Stream.TRAINING or term != INSTANCE or not draw.caption:
            return draw
        share = self.settings.alone_share
        rng = generator(self.settings.seed, stream, number, _WHOSE)
        place = float(torch.rand((), generator=rng))
        if place >= share:
            return draw
        alone = CONTENT if place < share / 2 else STYLE
        own = self.settings.content_prompt, self.settings.style_prompt
        return UnZipLoRADraw(**{**vars(draw), "caption": own[alone]}, alone=alone)

    def _errors(self, draws: Sequence[Draw], branches: bool = True) -> Tensor:
        """Compute the MSE `(n,)` of each sample; where one LoRA learns alone, without mergers."""
        if _alone(draws[0]) is not None:
            self.fold(mergers=False)
        return super()._errors(draws, branches)

    def _separate(self) -> Tensor:
        """Add the gradient of the penalty to the mergers of features that both LoRAs have."""
        mergers, rows = self.learned.mergers.flat, self.rows()
        unused = {name: row[CONTENT].detach() for name, row in rows.items()}
        penalty = similarity_penalty("dot_mean", rows, unused) / len(rows)
        (self.settings.similarity_weight * penalty).backward()
        assert mergers.grad is not None
        mergers.grad *= self.masks.overlap
        return penalty.detach()

    def _importance(self, step: int) -> dict[str, Tensor]:
        """Compute the importance `(2, out)` of all features, summed over a few separate draws.

        One draw has a single timestep, which is too little (the public implementation uses one).
        """
        count = self.settings.importance_samples
        scores: dict[str, Tensor] = {}
        for number in range(step * count, (step + 1) * count):
            self.fold()
            draw = self._draw(self.instances, INSTANCE, number, Stream.IMPORTANCE)
            self._errors([draw]).sum().backward()
            for name, found in self._scores().items():
                scores[name] = scores[name] + found if name in scores else found
            for leaf in self.parameters:
                leaf.grad = None
        return scores

    @torch.no_grad()
    def _scores(self) -> dict[str, Tensor]:
        """Compute the importance of all features from the current gradient."""
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


def _alone(draw: Draw) -> int | None:
    """Return the LoRA that learns a sample alone, or None."""
    return draw.alone if isinstance(draw, UnZipLoRADraw) else None
