"""ZipLoRA's objective on a pool of states, ready for the training loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .branches import Branches, Gates
from .coefficients import MergerCoefficients
from .merge import column_cosines
from .objective import (
    coefficient_cosine,
    mean_squared_error,
    min_snr_weight,
    similarity_penalty,
)
from .options import TrainingOptions, ZipSettings
from .pairing import ModulePair
from .states import DenoisingModel, State, draw_index, predict, stackable

TERMS = ("content", "style", "joint")
ORTHOGONAL = 1e-3
"""The paper stops when the cosine "drops to zero": below this mean |cos(m_c, m_s)|."""


@dataclass
class ZipObjective:
    """L = MSE(content) + MSE(style) + λ Σ_layers similarity(m_c, m_s)   (arXiv:2311.13600, eq. 3)

    Each MSE compares the merged prediction with its teacher's, in the model's own space; the
    targets are part of the states. A third one, MSE(joint), is ours: its teacher is both LoRAs at
    full strength at a prompt that asks for both, which eq. 3 never sees.

    Args:
        model: with `branches` on it; while it checkpoints, the teachers' states go in turn.
        branches: by module.
        coefficients: what is learned.
        pairs: the factors, for the column cosines.
        states: of content, style and, where it counts, joint; with targets.
        settings: penalty, batch, accumulation, min-SNR weights; the seed fixes the draws.
        v_prediction: the model's own space, for min-SNR.
    """

    model: DenoisingModel
    branches: Mapping[str, Branches]
    coefficients: MergerCoefficients
    pairs: Mapping[str, ModulePair]
    states: Sequence[Sequence[State]]
    settings: ZipSettings
    v_prediction: bool = False

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
        """Fold the present coefficients into the branches."""
        for name, columns in self.coefficients.columns().items():
            self.branches[name].fold(columns)

    def backward(self, step: int) -> dict[str, Tensor]:
        """Add the gradient of one step to the coefficients; returns the detached terms."""
        mse = [torch.zeros((), device=self.coefficients.flat.device) for _ in self.states]
        for part in range(self.options.accumulation):
            draws = self._draws(step * self.options.accumulation + part)
            together = not self.low_memory and stackable(*draws)
            teachers = range(len(draws))
            for turn in [teachers] if together else [[teacher] for teacher in teachers]:
                self.fold()
                errors = self._errors([draws[teacher] for teacher in turn])
                torch.stack(errors).sum().backward()
                for teacher, error in zip(turn, errors, strict=True):
                    mse[teacher] += error.detach()
        penalty = similarity_penalty(
            self.settings.similarity, self.coefficients.columns(), self._column_cosines
        )
        weight = self.settings.similarity_weight
        (weight * penalty).backward()
        penalty = penalty.detach()
        terms = dict(zip(TERMS, mse, strict=False))
        return {"loss": sum(mse, weight * penalty), **terms, "penalty": penalty}

    @property
    def low_memory(self) -> bool:
        return self.model.checkpointing

    @property
    def carried(self) -> dict[str, Tensor]:
        """Nothing: a step depends on the coefficients and on its number alone."""
        return {}

    def carry(self, tensors: Mapping[str, Tensor]) -> None:
        """There is nothing to take up."""

    def after_step(self) -> None:
        """Coefficients have no bounds."""

    def save_memory(self) -> bool:
        """Checkpoint blocks from now on; False when that was already so."""
        was, self.model.checkpointing = self.model.checkpointing, True
        return not was

    def _draws(self, part: int) -> list[list[State]]:
        """The states of one pass: the same draw number for every teacher, so that they share
        noise and timestep wherever their pools do."""
        batch, seed = self.options.batch, self.settings.seed
        return [
            [states[draw_index(seed, len(states), part * batch + i)] for i in range(batch)]
            for states in self.states
        ]

    def _errors(self, groups: Sequence[Sequence[State]]) -> list[Tensor]:
        """Mean weighted MSE of each group, from one batch."""
        states = [state for group in groups for state in group]
        prediction = predict(self.model.denoise, states, Gates())
        target = torch.stack([s.target for s in states if s.target is not None])
        sigma = torch.stack([s.sigma for s in states])
        weight = min_snr_weight(sigma, self.options.min_snr_gamma, self.v_prediction)
        errors = mean_squared_error(prediction, target.to(prediction)) * weight.to(prediction)
        return [e.mean() / self.options.accumulation for e in errors.split(self.options.batch)]

    def finished(self, history: Mapping[str, Sequence[float]]) -> str | None:
        """Say why to stop early: the paper's rule, or a plateau over the pool; None to go on."""
        steps = len(history["loss"])
        if steps % 10 == 0 and coefficient_cosine(self.coefficients.columns()) < ORTHOGONAL:
            return "the coefficients are orthogonal (the paper's rule)"
        epoch = -(-max(map(len, self.states)) // (self.options.batch * self.options.accumulation))
        errors = [history[term] for term in TERMS[: len(self.states)]]
        return plateau([sum(step) for step in zip(*errors, strict=True)], epoch)


def plateau(errors: Sequence[float], epoch: int) -> str | None:
    """Say so when three whole epochs have not beaten the best one before by 1 %.

    Only whole epochs are compared: one step's loss mostly tells which timestep was drawn.
    """
    if len(errors) % epoch or len(errors) < 4 * epoch:
        return None
    means = [sum(errors[i : i + epoch]) / epoch for i in range(0, len(errors), epoch)]
    if min(means[-3:]) > 0.99 * min(means[:-3]):
        return "the losses have stopped falling"
    return None
