"""The one mechanism: gated low-rank branches beside a frozen layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .errors import problem
from .lora import LoraFactors


@dataclass(frozen=True)
class Gates:
    """How far each branch is open for each sample of a batch.

    Args:
        values: `(sample, branch)`, or None where every branch is fully open.
        learned: False reads the learned columns as one: the single-LoRA teacher.
        prompts: `(sample, branch, token, width)`: what each branch reads where the layer's own
            input is the prompt; None: that prompt. Zeros: nothing comes from the branch there;
            where all are zero, one token is enough.
        teachers: so many samples at the beginning read the columns as one all the same.
    """

    values: Tensor | None = None
    learned: bool = True
    prompts: Tensor | None = None
    teachers: int = 0

    def each(self, change: Callable[[Tensor], Tensor]) -> Gates:
        """Change every tensor: move it to where the layers compute, once a forward."""
        values, prompts = (None if t is None else change(t) for t in (self.values, self.prompts))
        return replace(self, values=values, prompts=prompts)

    def of(self, samples: Sequence[int]) -> Gates:
        """Keep the rows of some samples; of prompts that are all zero, one token: it goes with
        samples whose own length is another one."""
        rows = list(samples)
        values, prompts = (t if t is None else t[rows] for t in (self.values, self.prompts))
        if prompts is not None and not prompts.any():
            prompts = prompts[..., :1, :]
        return Gates(values, self.learned, prompts, sum(i < self.teachers for i in rows))

    def for_guidance(self, samples: int) -> Gates:
        """Repeat a batch for its unconditional half, where a branch's own prompt is zero."""
        both = self.of([*range(samples)] * 2)
        if both.prompts is None:
            return both
        positive = torch.arange(2 * samples, device=both.prompts.device) < samples
        return replace(both, prompts=both.prompts * positive.view(-1, 1, 1, 1))


class Branches:
    """The branches of one layer, concatenated along their rank into one down and one up product.

        delta(x) = Σ_k gate_k · scale_k · up_k( down_k( column_k ⊙ x_k ) )

    `column_k` `(in,)` scales input feature j of branch k (ZipLoRA, arXiv:2311.13600, eq. 2); since
    `delta_k · diag(column_k) = up_k (down_k · diag(column_k))` it is folded into `down`. x_k is x
    or, in a layer that reads the prompt, branch k's own (UnZipLoRA, arXiv:2412.04465).

    Args:
        factors: one entry per branch, None where that LoRA has no such module.
        reads_prompt: the layer's input is the prompt, so that gates with prompts replace it.
    """

    def __init__(self, factors: Sequence[LoraFactors | None], reads_prompt: bool = False) -> None:
        self.reads_prompt = reads_prompt
        self.ranks = [0 if f is None else f.rank for f in factors]
        self.set_factors(factors)
        self.branch_of_row = torch.repeat_interleave(
            torch.arange(len(self.ranks)), torch.tensor(self.ranks)
        )
        self._folded: Tensor | None = None

    @property
    def width(self) -> int:
        """Number of input features (columns)."""
        return self.down.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes of the factors, and of `down` once more with the columns folded in."""
        return 2 * self.down.nbytes + self.up.nbytes

    def set_factors(self, factors: Sequence[LoraFactors | None]) -> None:
        """Take these factors, of the same ranks, from now on; gradients flow back to them."""
        present = [f for f in factors if f is not None]
        self.down = _joined([f.down for f in present], dim=0)  # (Σ rank, in, *k)
        self.up = _joined(  # (out, Σ rank, *1)
            [f.up if f.scale == 1 else f.scale * f.up for f in present], dim=1
        )

    def to(self, device: torch.device, dtype: torch.dtype, non_blocking: bool = False) -> None:
        """Move to where the layer computes, in its dtype: a model's own branches are there once."""

        def moved(part: Tensor) -> Tensor:
            return part.to(dtype).to(device, non_blocking=non_blocking)

        self.down, self.up = moved(self.down), moved(self.up)
        self.branch_of_row = self.branch_of_row.to(device, non_blocking=non_blocking)
        if self._folded is not None:
            self._folded = moved(self._folded)

    def on(self, device: torch.device, dtype: torch.dtype, non_blocking: bool = False) -> Branches:
        """Copy to where a layer computes; these stay where they are, as exact as they are."""
        placed = copy(self)
        placed.to(device, dtype, non_blocking)
        return placed

    def fold(self, columns: Tensor) -> None:
        """Fold float32 `columns` `(branch, in)` into `down`; gradients flow back to them."""
        parts = zip(self.down.split(self.ranks), columns.to(self.down.device), strict=True)
        rest = (1,) * (self.down.ndim - 2)
        folded = [part * column.view(1, -1, *rest) for part, column in parts]
        self._folded = torch.cat(folded).to(self.up.dtype)

    def delta(self, x: Tensor, gates: Gates, layer: nn.Module) -> Tensor:
        """Compute what the branches add to the layer's output for its input `x`."""
        if gates.prompts is not None and self.reads_prompt:
            prompts = as_long(gates.prompts.to(x), x.shape[1]).unbind(1)
            parts = zip(prompts, self.down.to(x.dtype).split(self.ranks), strict=True)
            z = torch.cat([F.linear(own, part) for own, part in parts], dim=-1)
        else:
            z = self._middle(x, gates, layer)
        if gates.values is not None:
            rows = gates.values.to(z)  # (sample, branch)
            if len(self.ranks) > 1:
                rows = rows[:, self.branch_of_row]  # (sample, Σ rank)
            middle = (1,) * (z.ndim - 2)
            shape = (*rows.shape, *middle) if z.ndim == 4 else (len(rows), *middle, rows.shape[1])
            z = z * rows.view(shape)
        up = self.up.to(x.dtype)
        return F.conv2d(z, up) if isinstance(layer, nn.Conv2d) else F.linear(z, up)

    def _middle(self, x: Tensor, gates: Gates, layer: nn.Module) -> Tensor:
        """down(x), with the learned columns where the gates say so."""

        def product(x: Tensor, down: Tensor) -> Tensor:
            if isinstance(layer, nn.Conv2d):
                return F.conv2d(x, down, None, layer.stride, layer.padding, layer.dilation)
            return F.linear(x, down)

        down = self.down.to(x.dtype)
        if self._folded is None or not gates.learned:
            return product(x, down)
        folded = self._folded.to(x.dtype)
        if not (n := gates.teachers):
            return product(x, folded)
        return torch.cat([product(x[:n], down), product(x[n:], folded)])


def as_long(prompts: Tensor, tokens: int) -> Tensor:
    """Repeat prompts `(…, token, width)` to the number of tokens that the layer itself reads.

    ComfyUI repeats prompts so, too: attention to a token twice is attention to it once.

    Raises:
        ZipLoRAError: that number is no multiple of theirs.
    """
    times, rest = divmod(tokens, prompts.shape[-2])
    if rest or not times:
        raise problem(
            "prompts of content and style",
            found=f"{prompts.shape[-2]} tokens beside {tokens} of the joint prompt",
            expected="a joint prompt that is as long, or a multiple of it",
            advice="Shorten them to the joint prompt's length; up to about 75 words are one piece.",
        )
    return prompts if times == 1 else prompts.repeat(*(1,) * (prompts.ndim - 2), times, 1)


def _joined(parts: Sequence[Tensor], dim: int) -> Tensor:
    """Concatenate. One part alone is copied only where autograd could not keep it: a file's tensors
    are made in inference mode, in which ComfyUI runs nodes."""
    if len(parts) > 1:
        return torch.cat(list(parts), dim)
    return parts[0].clone() if parts[0].is_inference() else parts[0]
