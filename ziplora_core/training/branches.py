"""Gated low-rank branches beside a frozen layer, which every method builds on."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import problem
from ..lora.factors import LoraFactors

CONVOLUTIONS = (nn.Conv2d, nn.Conv3d)


@dataclass(frozen=True)
class Gates:
    """The gate of each branch for each sample of a batch.

    Args:
        values: factors `(sample, branch)`, or None for 1 everywhere.
        learned: False replaces the learned columns by 1, as for the single-LoRA teacher.
        prompts: prompts `(sample, branch, token, width)` of the branches, for layers whose input is
            the prompt; None for the layer's own input. With zeros, the branch adds nothing there;
            where all are zero, one token is enough.
        teachers: number of samples at the start of the batch whose columns are 1 in any case.
    """

    values: Tensor | None = None
    learned: bool = True
    prompts: Tensor | None = None
    teachers: int = 0

    def each(self, change: Callable[[Tensor], Tensor]) -> Gates:
        """Apply `change` to every tensor, e.g. a move to the layers' device, once per forward."""
        values, prompts = (None if t is None else change(t) for t in (self.values, self.prompts))
        return replace(self, values=values, prompts=prompts)

    def of(self, samples: Sequence[int]) -> Gates:
        """Select the rows of some samples.

        Prompts that are all zero are cut to one token, which fits prompts of any length.
        """
        rows = list(samples)
        values, prompts = (t if t is None else t[rows] for t in (self.values, self.prompts))
        if prompts is not None and not prompts.any():
            prompts = prompts[..., :1, :]
        return Gates(values, self.learned, prompts, sum(i < self.teachers for i in rows))

    def for_guidance(self, samples: int, negative_strength: float = 1.0) -> Gates:
        """Repeat a batch for its unconditional half, whose branches have prompts of zero.

        Args:
            samples: the size of the batch.
            negative_strength: a factor on the values in the unconditional half.
        """
        both = self.of([*range(samples)] * 2)
        if both.values is not None and negative_strength != 1:
            halves = both.values.new_tensor([1.0, negative_strength]).repeat_interleave(samples)
            both = replace(both, values=both.values * halves[:, None])
        if both.prompts is None:
            return both
        positive = torch.arange(2 * samples, device=both.prompts.device) < samples
        return replace(both, prompts=both.prompts * positive.view(-1, 1, 1, 1))


class Branches:
    """The branches of one layer, concatenated along their rank into one down and one up product.

        delta(x) = Σ_k gate_k · scale_k · up_k( down_k( column_k ⊙ x_k ) )

    `column_k` `(in,)` scales input feature j of branch k (ZipLoRA, arXiv:2311.13600, eq. 2); since
    `delta_k · diag(column_k) = up_k (down_k · diag(column_k))`, it is folded into `down`. x_k is x
    or, in a layer that reads the prompt, branch k's own prompt (UnZipLoRA, arXiv:2412.04465).

    Args:
        factors: one entry per branch, None where that LoRA lacks the module.
        reads_prompt: whether the layer's input is the prompt, which gates with prompts replace.
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
        """The number of input features (columns)."""
        return self.down.shape[1]

    @property
    def nbytes(self) -> int:
        """The bytes of the factors and of a second `down` with the columns folded in."""
        return 2 * self.down.nbytes + self.up.nbytes

    def set_factors(self, factors: Sequence[LoraFactors | None]) -> None:
        """Replace the factors by others of the same ranks; gradients flow back to them."""
        present = [f for f in factors if f is not None]
        self.down = _joined([f.down for f in present], dim=0)  # (Σ rank, in, *k)
        self.up = _joined(  # (out, Σ rank, *1)
            [f.up if f.scale == 1 else f.scale * f.up for f in present], dim=1
        )

    def to(self, device: torch.device, dtype: torch.dtype, non_blocking: bool = False) -> None:
        """Move the branches in place to the layer's device and dtype."""

        def moved(part: Tensor) -> Tensor:
            return part.to(dtype).to(device, non_blocking=non_blocking)

        self.down, self.up = moved(self.down), moved(self.up)
        self.branch_of_row = self.branch_of_row.to(device, non_blocking=non_blocking)
        if self._folded is not None:
            self._folded = moved(self._folded)

    def on(self, device: torch.device, dtype: torch.dtype, non_blocking: bool = False) -> Branches:
        """Return a copy with a layer's device and dtype; the original keeps its own."""
        placed = copy(self)
        placed.to(device, dtype, non_blocking)
        return placed

    def times(self, share: float) -> Branches:
        """Return the branches with their output multiplied by a number."""
        if share == 1:
            return self
        scaled = copy(self)
        scaled.up = self.up * share
        return scaled

    def fold(self, columns: Tensor) -> None:
        """Fold float32 `columns` `(branch, in)` into `down`; gradients flow back to them."""
        parts = zip(self.down.split(self.ranks), columns.to(self.down.device), strict=True)
        rest = (1,) * (self.down.ndim - 2)
        folded = [part * column.view(1, -1, *rest) for part, column in parts]
        self._folded = torch.cat(folded).to(self.up.dtype)

    def delta(self, x: Tensor, gates: Gates, layer: nn.Module) -> Tensor:
        """Compute the branches' addition to the layer's output for its input `x`."""
        if gates.prompts is not None and self.reads_prompt:
            prompts = repeat_tokens(gates.prompts.to(x), x.shape[1]).unbind(1)
            parts = zip(prompts, self.down.to(x.dtype).split(self.ranks), strict=True)
            z = torch.cat([F.linear(own, part) for own, part in parts], dim=-1)
        else:
            z = self._middle(x, gates, layer)
        if gates.values is not None:
            rows = _for_pieces(gates.values.to(z), len(z))  # (sample, branch)
            if len(self.ranks) > 1:
                rows = rows[:, self.branch_of_row]  # (sample, Σ rank)
            middle = (1,) * (z.ndim - 2)
            of_conv = isinstance(layer, CONVOLUTIONS)
            shape = (*rows.shape, *middle) if of_conv else (len(rows), *middle, rows.shape[1])
            z = z * rows.view(shape)
        up = self.up.to(x.dtype)
        return convolution(layer)(z, up) if isinstance(layer, CONVOLUTIONS) else F.linear(z, up)

    def _middle(self, x: Tensor, gates: Gates, layer: nn.Module) -> Tensor:
        """Compute down(x), with the learned columns where the gates ask for them."""

        def product(x: Tensor, down: Tensor) -> Tensor:
            if isinstance(layer, CONVOLUTIONS):
                convolve = convolution(layer)
                return convolve(x, down, None, layer.stride, layer.padding, layer.dilation)
            return F.linear(x, down)

        down = self.down.to(x.dtype)
        if self._folded is None or not gates.learned:
            return product(x, down)
        folded = self._folded.to(x.dtype)
        if not gates.teachers:
            return product(x, folded)
        assert gates.values is not None
        n = gates.teachers * len(x) // len(gates.values)  # a sample may be cut into pieces
        return torch.cat([product(x[:n], down), product(x[n:], folded)])


def convolution(layer: nn.Module) -> Callable[..., Tensor]:
    """Return the function of a layer of CONVOLUTIONS."""
    return F.conv3d if isinstance(layer, nn.Conv3d) else F.conv2d


def _for_pieces(values: Tensor, pieces: int) -> Tensor:
    """Repeat gates `(sample, branch)` for samples that are cut into pieces, as HyperTile does.

    Raises:
        ZipLoRAError: the pieces are no multiple of the samples.
    """
    if pieces == len(values):
        return values
    each, rest = divmod(pieces, len(values))
    if rest or not each:
        raise problem(
            "attention",
            found=f"{pieces} pieces where {len(values)} samples are drawn",
            expected="the samples, whole or each in the same number of pieces",
            advice="Remove the node that changes the batch inside the UNet (attn1 or attn2 patch).",
        )
    return values.repeat_interleave(each, 0)


def repeat_tokens(prompts: Tensor, tokens: int) -> Tensor:
    """Repeat prompts `(…, token, width)` to a number of tokens that is a multiple of theirs.

    ComfyUI repeats prompts in the same way: repeated tokens do not change the attention.

    Raises:
        ZipLoRAError: it is no multiple, as another node has added tokens inside the network.
    """
    times, rest = divmod(tokens, prompts.shape[-2])
    if rest or not times:
        raise problem(
            "cross-attention",
            found=f"{tokens} tokens where content and style read {prompts.shape[-2]}",
            expected="the tokens of the prompt, and no others",
            advice="Remove the node that adds tokens to the prompt inside the UNet (attn2 patch).",
        )
    return prompts if times == 1 else prompts.repeat(*(1,) * (prompts.ndim - 2), times, 1)


def lengthened(context: Tensor, prompts: Tensor | None) -> Tensor:
    """Repeat the model's own prompt to the least length that the branches' prompts fit into, too.

    As where ComfyUI puts prompts of different lengths into one batch (`CONDCrossAttn`), 3 pieces
    of 77 tokens beside 2 become 6 each.

    Args:
        context: the prompts that the model reads, `(sample, token, width)`.
        prompts: the branches' prompts `(sample, branch, token, width)`, or None.
    """
    if prompts is None:
        return context
    return repeat_tokens(context, math.lcm(context.shape[-2], prompts.shape[-2]))


def _joined(parts: Sequence[Tensor], dim: int) -> Tensor:
    """Concatenate the parts.

    A single part is copied only if it is an inference tensor, which autograd cannot keep: ComfyUI
    runs nodes in inference mode, so a file's tensors are of that kind.
    """
    if len(parts) > 1:
        return torch.cat(list(parts), dim)
    return parts[0].clone() if parts[0].is_inference() else parts[0]
