"""The noisy samples of a merge: of each LoRA alone at its own prompt, and of joint prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...training.interface import ProgressCallbacks
from ...training.noisy_samples import NoisySample
from ...training.random import Pool
from ...ziplora.closed_form import closed_form_evaluations
from ...ziplora.options import ZipLoRASettings
from ..data.references import Reference, draw_pictures, evaluations, noisy_samples
from ..model import conditioning as cond
from ..model.training_model import TrainingModel
from .held_out import STRIDE
from .ziplora_inputs import Prompt

POOL = 32
"""Largest number of noisy samples per teacher; their targets are computed once."""
Samples = list[list[NoisySample]]
"""The samples of each teacher: content, style and, with joint prompts, the joint one."""


@dataclass(frozen=True)
class SampleDrawing:
    """Draws the samples that a merge learns from, and those that it is measured by.

    Args:
        opened: the model in training.
        prompts: the content and the style prompt, then joint prompts.
        latents: reference latents of each prompt, or None where pictures are drawn.
        settings: the node's settings.
    """

    opened: TrainingModel
    prompts: Sequence[Prompt]
    latents: Sequence[Tensor | None]
    settings: ZipLoRASettings

    def draw(
        self, callbacks: ProgressCallbacks, attempt: Callable[[str, Callable[[], Samples]], Any]
    ) -> tuple[Samples, Samples]:
        """Draw the training samples and the held-out samples, with their teachers' targets.

        Args:
            callbacks: are told how far it is.
            attempt: makes the held-out samples, which a merge can do without; None if that fails.
        """
        opened, settings = self.opened, self.settings
        options, shape = settings.options, opened.latent_shape(settings.height, settings.width)
        pool = min(settings.gradient_steps * options.batch * options.accumulation, POOL)
        draws = max(pool, settings.closed_form_samples)
        references = [self._reference(i, shape) for i in range(len(self.prompts))]
        total = self._evaluations(references, draws, targets=pool > 0)
        opened.on_evaluation = lambda done: callbacks.on_prepare(done, total)
        samples, references = draw_pictures(
            opened, references, shape, draws, settings.seed,
            negative_strength=settings.negative_strength,
        )  # fmt: skip
        for i, drawn in enumerate(samples):
            if not drawn:
                samples[i] = noisy_samples(
                    opened, references[i], draws, settings.seed, Pool.TRAINING, targets=pool > 0
                )

        def draw_held_out() -> Samples:
            draws, seed = options.held_out_draws, settings.seed
            return [noisy_samples(opened, r, draws, seed, Pool.HELD_OUT) for r in references]

        held_out = attempt("drawing the held-out samples", draw_held_out) or [[]]
        return by_teacher(samples), by_teacher(held_out)

    def _evaluations(self, references: Sequence[Reference], draws: int, targets: bool) -> int:
        """Count the evaluations of the UNet before the first step, to show how far it is."""
        settings, held_out = self.settings, self.settings.options.held_out_draws
        passes = settings.passes if settings.closed_form_samples else 0
        each = held_out * (1 + (passes > 0))  # the direct merge, and the last pass
        each += max(passes - 1, 0) * -(-held_out // STRIDE)
        each += closed_form_evaluations(settings.closed_form_samples, settings.passes)
        drawing = evaluations(self.opened, references, draws, held_out, targets=targets)
        return drawing + len(references) * each

    def _reference(self, number: int, shape: tuple[int, ...]) -> Reference:
        opened, latents = self.opened, self.latents[number]
        prompt = self.prompts[number].conditioning
        like = torch.zeros(1, *shape, device=opened.device)
        if latents is not None:
            like = latents[:1].to(opened.device)
        positive = cond.prepare(opened.model, prompt, like)
        negative = cond.prepare(opened.model, cond.zeroed(prompt), like)
        return Reference(self.settings.teachers[min(number, 2)], positive, negative, latents)


def by_teacher(samples: Samples) -> Samples:
    """Join the samples of all joint prompts, which have one teacher."""
    joint = [sample for of_prompt in samples[2:] for sample in of_prompt]
    return [*samples[:2], *([joint] if joint else [])]
