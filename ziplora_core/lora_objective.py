"""What every objective for a new LoRA brings to the training loop, whatever it learns from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from .lora import LoraFactors
from .lora_parameters import LearnedLoRA


class Computing(Protocol):
    """A model that can keep one block's activations at a time."""

    checkpointing: bool
    dtype: torch.dtype


class LoRAObjective(ABC):
    """The part of `trainable.Trainable` that does not depend on the loss."""

    lora: LearnedLoRA
    optimiser = "adamw"
    weight_decay = 0.01

    @property
    @abstractmethod
    def computing(self) -> Computing:
        """The model."""

    @property
    @abstractmethod
    def learning_rates(self) -> list[float]: ...

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
    def low_memory(self) -> bool:
        return self.computing.checkpointing

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
        was, self.computing.checkpointing = self.computing.checkpointing, True
        return not was

    def finished(self, history: Mapping[str, Sequence[float]]) -> None:
        """A loss that depends on the drawn noise level tells no plateau: never stop early."""
        return None

    def fold(self) -> None:
        """Put the present factors into the branches."""
        self.lora.fold(self.computing.dtype)

    def factors(self) -> dict[str, LoraFactors]:
        """Copy out what has been learned."""
        parts = [network.parameters.detached() for network in self.networks]
        return {name: factors for part in parts for name, factors in part.items()}
