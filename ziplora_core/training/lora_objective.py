"""The base class of all objectives that train a new LoRA."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from ..lora.factors import LoraFactors
from .interface import PlainTask
from .lora_parameters import LearnedLoRA
from .options import TrainingOptions


class Computing(Protocol):
    """A model with activation checkpointing, and its compute dtype."""

    checkpointing: bool
    dtype: torch.dtype


class TrainerSettings(Protocol):
    """The settings that all trainers share."""

    @property
    def steps(self) -> int: ...

    @property
    def learning_rates(self) -> list[float]:
        """The learning rate of each of the objective's leaves, before the schedule."""
        ...

    @property
    def memory(self) -> str: ...

    @property
    def options(self) -> TrainingOptions: ...


Model = TypeVar("Model", bound=Computing)
Settings = TypeVar("Settings", bound=TrainerSettings)


class LoRAObjective(PlainTask, ABC, Generic[Model, Settings]):
    """The part of a `TrainingTask` that does not depend on the loss."""

    model: Model
    lora: LearnedLoRA
    settings: Settings
    optimiser = "adamw"
    weight_decay = 0.01

    @property
    def terms(self) -> int:
        """The number of loss terms, which share a batch unless memory is low."""
        return 1

    @property
    @abstractmethod
    def largest(self) -> Sequence[int]:
        """The latent size `(h, w)` of the largest picture."""

    @abstractmethod
    def backward(self, step: int) -> Mapping[str, Tensor]:
        """Add one step's gradients; return detached scalars by term, among them `loss`."""

    @property
    def networks(self) -> list[LearnedLoRA]:
        """The LoRA of the diffusion model; a subclass may add that of the text encoders."""
        return [self.lora]

    @property
    def parameters(self) -> list[Tensor]:
        return [network.parameters.flat for network in self.networks]

    @property
    def options(self) -> TrainingOptions:
        return self.settings.options

    @property
    def learning_rates(self) -> list[float]:
        return self.settings.learning_rates

    def finished(self, history: Mapping[str, Sequence[float]]) -> None:
        """Never stop early: a loss that depends on the drawn timestep does not show a plateau."""
        return None

    def fold(self) -> None:
        """Put the current factors into the branches."""
        self.lora.fold(self.model.dtype)

    def factors(self) -> dict[str, LoraFactors]:
        """Return a copy of the trained factors."""
        parts = [network.parameters.detached() for network in self.networks]
        return {name: factors for part in parts for name, factors in part.items()}
