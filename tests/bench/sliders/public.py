"""The public implementation's arithmetic (rohitgandikota/sliders at a465294), written anew.

- Every prediction is a batch with an unconditional half, also at guidance 1, where that half is
  multiplied by zero.
- Three predictions without the slider run one by one, with the products of its layers computed and
  multiplied by zero.
- The pictures of a pair run one after the other, each with one more prediction that is not used.

Left out, as not part of the arithmetic: at every step, both pictures are encoded by the VAE, and
memory is collected.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from typing import Any

import comfy.utils
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ziplora_core.sliders.picture_objective import PairSliderObjective
from ziplora_core.sliders.text_objective import GUIDANCE, TextSliderObjective, denoising_sigmas

from .task import Task


class Public:
    """Both training steps, on the same model.

    Args:
        task: the task, whose slider is copied; our own branches are off meanwhile.
    """

    def __init__(self, task: Task) -> None:
        self.task, self.multiplier = task, 0.0
        factors = task.lora.parameters.detached()
        self.scale = {name: f.scale for name, f in factors.items()}
        self.down, self.up = (
            {n: getattr(f, part).to(task.opened.device) for n, f in factors.items()}
            for part in ("down", "up")
        )
        self.parameters = [*self.down.values(), *self.up.values()]
        for parameter in self.parameters:
            parameter.requires_grad_()
        self.optimiser = torch.optim.AdamW(self.parameters, lr=0.0)

    def words(self, objective: TextSliderObjective, sample: int) -> float:
        """Make a step on the sample that ours draws, too; return the loss."""
        concept, (steps,), noise = objective.start(sample, 1)
        sigmas = denoising_sigmas(self.task.opened.sigmas).tolist()
        empty = concept.negative
        with self._hooked():
            with torch.no_grad():
                x = noise[None].to(self.task.opened.device) * (1 + sigmas[0] ** 2) ** 0.5
                for sigma, following in pairwise(sigmas[: steps + 1]):
                    x = x + self._predict(x, sigma, empty, concept.target, 1.0, GUIDANCE) * (
                        following - sigma
                    )
                positive, neutral, negative = (
                    self._predict(x, sigmas[steps], empty, prompt, 0.0)
                    for prompt in (concept.positive, concept.neutral, concept.negative)
                )
            target = self._predict(x, sigmas[steps], empty, concept.target, 1.0)
            offset = objective.settings.guidance * (positive - negative)
            loss = F.mse_loss(target, neutral + offset)
            loss.backward()
            return self._update(loss)

    def pictures(self, objective: PairSliderObjective, sample: int) -> float:
        """Make a step on the pair that ours draws, too; return the sum of both losses."""
        halves, empty = objective.draw(sample), self.task.prompts.negative
        asked = objective.conditioner([(half.caption, half.frame) for half in halves])
        shown = dict(zip((half.term for half in halves), asked, strict=True))
        with self._hooked():
            with torch.no_grad():
                for half in halves:
                    self._predict(half.x[None], half.sigma, empty, shown[half.term], 0.0)
            total = torch.zeros((), device=self.task.opened.device)
            for half in halves:
                predicted = self._predict(
                    half.x[None], half.sigma, empty, shown[half.term], half.gate
                )
                loss = F.mse_loss(predicted, half.target[None].to(predicted))
                loss.backward()
                total += loss.detach()
            return self._update(total)

    def _predict(
        self, x: Tensor, sigma: Any, empty: Any, prompt: Any, multiplier: float, guidance: float = 1
    ) -> Tensor:
        """Predict both halves in any case, and combine them: u + g (c − u)."""
        self.multiplier = multiplier
        sigmas = torch.as_tensor(sigma, device=x.device).float().expand(2)
        both = self.task.opened.denoise(x.repeat(2, 1, 1, 1), sigmas, [empty, prompt], None)
        without, given = both.chunk(2)
        return without + guidance * (given - without)

    def _update(self, loss: Tensor) -> float:
        self.optimiser.step()
        self.optimiser.zero_grad()
        return loss.item()

    def _hooked(self) -> ExitStack:
        """Add the layers' products inside a `with`."""
        stack = ExitStack()
        for name in self.down:
            key = self.task.keys[name].removesuffix(".weight")
            layer = comfy.utils.get_attr(self.task.opened.model, key)
            stack.callback(layer.register_forward_hook(self._hook(name)).remove)
        return stack

    def _hook(self, name: str) -> Callable[..., Tensor]:
        def add(layer: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> Tensor:
            x, down, up = inputs[0], self.down[name], self.up[name]
            down, up = down.to(x.dtype), up.to(x.dtype)
            if isinstance(layer, nn.Conv2d):
                product = F.conv2d(F.conv2d(x, down, None, layer.stride, layer.padding), up)
            else:
                product = F.linear(F.linear(x, down), up)
            return out + product * self.multiplier * self.scale[name]

        return add
