"""ZipLoRA's objective for the training loop: its loss on a pool of noisy samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..lora.coefficients import MergerCoefficients
from ..lora.merged import column_cosines
from ..lora.pair import ModulePair
from ..training.branches import Branches, Gates
from ..training.interface import PlainTask
from ..training.losses import (
    coefficient_cosine,
    mean_squared_error,
    min_snr_weight,
    similarity_penalty,
)
from ..training.noisy_samples import DenoisingModel, NoisySample, predict, stackable
from ..training.options import TrainingOptions
from ..training.random import draw_index
from .options import ZipLoRASettings

TERMS = ("content", "style", "joint")
ORTHOGONAL = 1e-3
"""Mean |cos(m_c, m_s)| that counts as zero: the paper stops when the cosine "drops to zero"."""


@dataclass
class ZipLoRAObjective(PlainTask):
    """The loss of ZipLoRA over the merger coefficients (arXiv:2311.13600, eq. 3).

        L = MSE(content) + MSE(style) + λ Σ_layers similarity(m_c, m_s)

    Each MSE compares the prediction of the merge with its teacher's, in the model's own space; the
    samples hold the targets. An optional third term, w · MSE(joint), is not in the paper: its
    teacher is both LoRAs together, at a prompt that asks for both, which eq. 3 never sees.

    Args:
        model: a model with `branches` on it; while it checkpoints, teachers take turns.
        branches: the branches by module.
        coefficients: the parameters.
        pairs: the factors, for the column cosines.
        samples: the samples of content, style and optionally joint, with targets.
        settings: penalty, batch, accumulation, min-SNR weights; the seed fixes the draws.
        v_prediction, flow: whether the model predicts v, or a flow's velocity, for min-SNR.
    """

    model: DenoisingModel
    branches: Mapping[str, Branches]
    coefficients: MergerCoefficients
    pairs: Mapping[str, ModulePair]
    samples: Sequence[Sequence[NoisySample]]
    settings: ZipLoRASettings
    v_prediction: bool = False
    flow: bool = False

    def __post_init__(self) -> None:
        device = self.coefficients.flat.device
        self._column_cosines = {
            name: column_cosines(self.pairs[name]).to(device) for name in self.coefficients.widths
        }

    @property
    def options(self) -> TrainingOptions:
        return self.settings.options

    @property
    def parameters(self) -> list[Tensor]:
        return [self.coefficients.flat]

    @property
    def learning_rates(self) -> list[float]:
        return [self.settings.learning_rate]

    @property
    def optimiser(self) -> str:
        return "adam"

    @property
    def weight_decay(self) -> float:
        return 0.01

    def fold(self) -> None:
        """Fold the current coefficients into the branches."""
        for name, columns in self.coefficients.by_module().items():
            self.branches[name].fold(columns)

    def backward(self, step: int) -> dict[str, Tensor]:
        """Add the gradient of one step to the coefficients and return the detached terms."""
        mse = [torch.zeros((), device=self.coefficients.flat.device) for _ in self.samples]
        for part in range(self.options.accumulation):
            draws = self._draws(step * self.options.accumulation + part)
            together = not self.low_memory and stackable(*draws)
            teachers = range(len(draws))
            for turn in [teachers] if together else [[teacher] for teacher in teachers]:
                self.fold()
                errors = self._errors([draws[teacher] for teacher in turn])
                weights = [self.settings.weights[teacher] for teacher in turn]
                errors = [w * error for w, error in zip(weights, errors, strict=True)]
                torch.stack(errors).sum().backward()
                for teacher, error in zip(turn, errors, strict=True):
                    mse[teacher] += error.detach()
        penalty = similarity_penalty(
            self.settings.similarity, self.coefficients.by_module(), self._column_cosines
        )
        weight = self.settings.similarity_weight
        (weight * penalty).backward()
        penalty = penalty.detach()
        terms = dict(zip(TERMS, mse, strict=False))
        return {"loss": sum(mse, weight * penalty), **terms, "penalty": penalty}

    def _draws(self, part: int) -> list[list[NoisySample]]:
        """Draw the samples of one pass, with the same draw numbers for every teacher, so that they
        share noise and timestep wherever their pools do."""
        batch, seed = self.options.batch, self.settings.seed
        return [
            [samples[draw_index(seed, len(samples), part * batch + i)] for i in range(batch)]
            for samples in self.samples
        ]

    def _errors(self, groups: Sequence[Sequence[NoisySample]]) -> list[Tensor]:
        """Compute the mean weighted MSE of each group in one batch."""
        samples = [sample for group in groups for sample in group]
        prediction = predict(self.model.denoise, samples, Gates())
        target = torch.stack([s.target for s in samples if s.target is not None])
        sigma = torch.stack([s.sigma for s in samples])
        gamma = 0.0 if self.flow else self.options.min_snr_gamma  # it is for ε and v
        weight = min_snr_weight(sigma, gamma, self.v_prediction)
        errors = mean_squared_error(prediction, target.to(prediction)) * weight.to(prediction)
        return [e.mean() / self.options.accumulation for e in errors.split(self.options.batch)]

    def finished(self, history: Mapping[str, Sequence[float]]) -> str | None:
        """Return a reason to stop early, the paper's rule or a plateau over the pool, or None."""
        steps = len(history["loss"])
        if steps % 10 == 0 and coefficient_cosine(self.coefficients.by_module()) < ORTHOGONAL:
            return "the coefficients are orthogonal (the paper's rule)"
        epoch = -(-max(map(len, self.samples)) // (self.options.batch * self.options.accumulation))
        errors = [history[term] for term in TERMS[: len(self.samples)]]
        return plateau([sum(step) for step in zip(*errors, strict=True)], epoch)


def plateau(errors: Sequence[float], epoch: int) -> str | None:
    """Return a reason to stop once three epochs have not beaten the best earlier one by 1 %.

    Only whole epochs are compared: the loss of one step mostly reflects its timestep.
    """
    if len(errors) % epoch or len(errors) < 4 * epoch:
        return None
    means = [sum(errors[i : i + epoch]) / epoch for i in range(0, len(errors), epoch)]
    if min(means[-3:]) > 0.99 * min(means[:-3]):
        return "the losses have stopped falling"
    return None
