"""The pack's own training step, as the training loop makes it."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ziplora_core.lora.coefficients import MergerCoefficients
from ziplora_core.training.noisy_samples import NoisySample
from ziplora_core.training.optimisers import make_optimiser
from ziplora_core.ziplora.objective import ZipLoRAObjective
from ziplora_core.ziplora.options import ZipLoRASettings

from .task import Task

Targets = Callable[[int], list[NoisySample]]
"""The n-th noisy samples of content and style, with their teachers' targets."""


class Ours:
    """ZipLoRAObjective.backward, clipping, the losses' values, and the optimiser.

    Args:
        task: the task to train on.
        targets: function that takes targets from the pool, or computes them at every step.
        low: whether to use memory=low instead of fast.
    """

    def __init__(self, task: Task, targets: Targets, low: bool = False) -> None:
        self.task, self.targets, self.low = task, targets, low
        widths = {name: branches.width for name, branches in task.branches.items()}
        self.objective = ZipLoRAObjective(
            model=task.opened,
            branches=task.branches,
            coefficients=MergerCoefficients(widths, task.device),
            pairs=task.pairs,
            samples=([], []),
            settings=ZipLoRASettings(),
        )
        rates = self.objective.learning_rates
        self.optimiser = make_optimiser("adam", self.objective.parameters, rates)

    def __call__(self, n: int) -> dict[str, float]:
        """Make the n-th step; return the terms of its loss."""
        self.task.opened.checkpointing = self.low
        content, style = self.targets(n)
        self.objective.samples = ([content], [style])
        self.optimiser.zero_grad(set_to_none=True)
        terms = self.objective.backward(n)
        torch.nn.utils.clip_grad_norm_(self.objective.parameters, 1.0)
        values = torch.stack(list(terms.values())).tolist()
        self.optimiser.step()
        self.task.opened.checkpointing = False
        return dict(zip(terms, values, strict=True))

    @property
    def gradient(self) -> torch.Tensor:
        """Return the clipped gradient of the last step."""
        assert self.objective.coefficients.flat.grad is not None
        return self.objective.coefficients.flat.grad

    @property
    def coefficients(self) -> torch.Tensor:
        return self.objective.coefficients.flat.detach()
