"""What every objective for a new LoRA brings to the training loop, whatever it learns from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from .lora import LoraFactors
from .lora_parameters import LearnedLoRA
from .options import TrainingOptions


class Computing(Protocol):
    """A model that can keep one block's activations at a time."""

    checkpointing: bool
    dtype: torch.dtype


class TrainerSettings(Protocol):
    """What the settings of every trainer say."""

    @property
    def steps(self) -> int: ...

    @property
    def learning_rates(self) -> list[float]:
        """Of each of the objective's leaves, before the schedule."""
        ...

    @property
    def memory(self) -> str: ...

    @property
    def options(self) -> TrainingOptions: ...


Model = TypeVar("Model", bound=Computing)
Settings = TypeVar("Settings", bound=TrainerSettings)


class LoRAObjective(ABC, Generic[Model, Settings]):
    """The part of `trainable.Trainable` that does not depend on the loss."""

    model: Model
    lora: LearnedLoRA
    settings: Settings
    optimiser = "adamw"
    weight_decay = 0.01

    @property
    def terms(self) -> int:
        """Of the loss, which share a batch unless memory is low."""
        return 1

    @property
    @abstractmethod
    def largest(self) -> Sequence[int]:
        """Latent `(h, w)` of the largest picture."""

    @abstractmethod
    def backward(self, step: int) -> Mapping[str, Tensor]: ...

    @property
    def networks(self) -> list[LearnedLoRA]:
        """The diffusion model's part; a subclass may add the text encoders'."""
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

    @property
    def low_memory(self) -> bool:
        return self.model.checkpointing

    @property
    def carried(self) -> dict[str, Tensor]:
        """What the next step needs beside the parameters: nothing."""
        return {}

    def carry(self, tensors: Mapping[str, Tensor]) -> None:
        """Take up what was `carried` when the run was cut short."""
        del tensors

    def after_step(self) -> None:
        """Factors have no bounds."""
        return None

    def save_memory(self) -> bool:
        """Checkpoint blocks from now on; False when that was already so."""
        was, self.model.checkpointing = self.model.checkpointing, True
        return not was

    def finished(self, history: Mapping[str, Sequence[float]]) -> None:
        """A loss that depends on the drawn noise level tells no plateau: never stop early."""
        return None

    def fold(self) -> None:
        """Put the present factors into the branches."""
        self.lora.fold(self.model.dtype)

    def factors(self) -> dict[str, LoraFactors]:
        """Copy out what has been learned."""
        parts = [network.parameters.detached() for network in self.networks]
        return {name: factors for part in parts for name, factors in part.items()}
