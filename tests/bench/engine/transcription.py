"""The public implementation's arithmetic (mkshing/ziplora-pytorch at 6871e5e), written anew.

Every layer has two dense updates and two merger vectors. At every call it computes the merged
update again, and autograd computes a dense gradient of it. A step has four predictions of one
sample each. Encoding both pictures with the VAE at every step is left out, as it is not part of the
arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import comfy.utils
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ziplora_core.training.noisy_samples import NoisySample, predict

from .task import Task

Mode = Literal["merge", "content", "style"]
LEARNING_RATE = 5e-5
"""The README's learning rate, too small to learn anything; the cost of a step is the same."""
SIMILARITY_WEIGHT = 0.01


class Layer:
    """One linear's dense updates and mergers, float32."""

    def __init__(self, content: Tensor, style: Tensor) -> None:
        self.deltas = content, style
        self.mergers = [torch.ones(content.shape[1], device=content.device) for _ in range(2)]
        for merger in self.mergers:
            merger.requires_grad_()

    def update(self, mode: Mode) -> Tensor:
        """Return the dense update `(out, in)` of one LoRA or of the merge."""
        (content, style), (m_content, m_style) = self.deltas, self.mergers
        if mode == "merge":
            return m_content * content + m_style * style
        return content if mode == "content" else style


class Transcription:
    """One training step.

    Args:
        task: the task to train on; our branches are off meanwhile.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.mode: Mode = "merge"
        self.layers: dict[str, Layer] = {}
        for name, pair in task.pairs.items():
            assert pair.content is not None and pair.style is not None
            deltas = (factors.delta().to(task.device) for factors in (pair.content, pair.style))
            self.layers[task.keys[name]] = Layer(*deltas)
        self.parameters = [m for layer in self.layers.values() for m in layer.mergers]
        self.optimiser = torch.optim.AdamW(self.parameters, LEARNING_RATE, weight_decay=1e-4)

    def __call__(self, n: int, checkpointing: bool) -> dict[str, float]:
        """Make the n-th step, with or without the README's flag; return the terms of its loss."""
        hooks = [self._linear(key).register_forward_hook(self._hook(key)) for key in self.layers]
        self.task.opened.checkpointing = checkpointing
        try:
            return self._step(*self.task.draw(n))
        finally:
            self.task.opened.checkpointing = False
            for hook in hooks:
                hook.remove()

    def _step(self, content: NoisySample, style: NoisySample) -> dict[str, float]:
        merged_content = self._predict("merge", content)
        merged_style = self._predict("merge", style)
        with torch.no_grad():
            target_content = self._predict("content", content)
            target_style = self._predict("style", style)
        self.mode = "merge"  # checkpointed blocks run again in the backward pass
        terms = {
            "content": F.mse_loss(merged_content, target_content),
            "style": F.mse_loss(merged_style, target_style),
            "penalty": self._penalty(),
        }
        loss = terms["content"] + terms["style"] + SIMILARITY_WEIGHT * terms["penalty"]
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad()
        return {name: term.item() for name, term in terms.items()}

    def _penalty(self) -> Tensor:
        products = [(m[0] * m[1]).abs().mean() for m in (x.mergers for x in self.layers.values())]
        return torch.stack(products).sum()

    def _predict(self, mode: Mode, state: NoisySample) -> Tensor:
        self.mode = mode
        return predict(self.task.opened.denoise, [state], None)

    def _linear(self, key: str) -> nn.Module:
        return comfy.utils.get_attr(self.task.opened.model, key.removesuffix(".weight"))

    def _hook(self, key: str) -> Callable[..., Tensor]:
        def add_update(_layer: nn.Module, inputs: tuple[Any, ...], out: Tensor) -> Tensor:
            x = inputs[0]
            return out + F.linear(x, self.layers[key].update(self.mode).to(x.dtype))

        return add_update
