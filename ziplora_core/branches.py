"""The one mechanism: gated low-rank branches beside a frozen layer."""

from __future__ import annotations

from collections.abc import Sequence
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
    """

    values: Tensor | None = None
    learned: bool = True
    prompts: Tensor | None = None

    def of(self, samples: Sequence[int]) -> Gates:
        """Keep the rows of some samples; of prompts that are all zero, one token: it goes with
        samples whose own length is another one."""
        rows = list(samples)
        values, prompts = (t if t is None else t[rows] for t in (self.values, self.prompts))
        if prompts is not None and not prompts.any():
            prompts = prompts[..., :1, :]
        return Gates(values, self.learned, prompts)

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

    def set_factors(self, factors: Sequence[LoraFactors | None]) -> None:
        """Take these factors, of the same ranks, from now on; gradients flow back to them."""
        present = [f for f in factors if f is not None]
        self.down = _joined([f.down for f in present], dim=0)  # (Σ rank, in, *k)
        self.up = _joined(  # (out, Σ rank, *1)
            [f.up if f.scale == 1 else f.scale * f.up for f in present], dim=1
        )

    def to(self, device: torch.device, dtype: torch.dtype) -> None:
        """Move to where the layer computes, in its dtype; `down` stays float32, to fold."""
        self.down = self.down.to(device)
        self.up = self.up.to(device, dtype)
        self.branch_of_row = self.branch_of_row.to(device)
        if self._folded is not None:
            self._folded = self._folded.to(device, dtype)

    def fold(self, columns: Tensor) -> None:
        """Fold `columns` `(branch, in)` into `down`; gradients flow back to them."""
        rows = columns.to(self.down.device).index_select(0, self.branch_of_row)  # (Σ rank, in)
        folded = self.down * rows.view(*rows.shape, *(1,) * (self.down.ndim - 2))
        self._folded = folded.to(self.up.dtype)

    def delta(self, x: Tensor, gates: Gates, layer: nn.Module) -> Tensor:
        """Compute what the branches add to the layer's output for its input `x`."""
        down = self.down if self._folded is None or not gates.learned else self._folded
        down, up = down.to(x.dtype), self.up.to(x.dtype)
        if isinstance(layer, nn.Conv2d):
            z = F.conv2d(x, down, None, layer.stride, layer.padding, layer.dilation)
        elif gates.prompts is not None and self.reads_prompt:
            prompts = as_long(gates.prompts.to(x), x.shape[1]).unbind(1)
            parts = zip(prompts, down.split(self.ranks), strict=True)
            z = torch.cat([F.linear(own, part) for own, part in parts], dim=-1)
        else:
            z = F.linear(x, down)
        if gates.values is not None:
            rows = gates.values.to(z)  # (sample, branch)
            if len(self.ranks) > 1:
                rows = rows[:, self.branch_of_row]  # (sample, Σ rank)
            middle = (1,) * (z.ndim - 2)
            shape = (*rows.shape, *middle) if z.ndim == 4 else (len(rows), *middle, rows.shape[1])
            z = z * rows.view(shape)
        return F.conv2d(z, up) if isinstance(layer, nn.Conv2d) else F.linear(z, up)


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
    """Concatenate; one part alone is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim)
