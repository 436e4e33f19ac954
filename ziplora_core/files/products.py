"""The algebra of every parametrisation of a low-rank update, as factors.

Each parametrisation consists of pairs `up (out, rank, *1)`, `down (rank, in, *k)`. A convolution
may have a core `(rank, rank, *k)` between the two. LoHa and LoKr multiply two such updates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ZipLoRAError, problem
from .dense_to_factors import dense_factors
from .limits import Limits

SMALL_RANK = 64
"""Rank that is always accepted, even for the narrow first and last layer of a UNet."""

Pair = tuple[Tensor, Tensor]
"""`up (out, rank)` and `down (rank, in, *k)`."""


@dataclass(frozen=True)
class Parts:
    """The tensors of one module by role, in float32, with the file's name and keys for messages.

    Products of them must keep to `limits`.
    """

    source: str
    keys: Mapping[str, str]
    tensors: Mapping[str, Tensor]
    limits: Limits

    def subject(self, role: str) -> str:
        """Return the subject of a message about the tensor of a role."""
        return f"{self.source}, key {self.keys[role]}"

    def wrong_shape(self, role: str, expected: str) -> ZipLoRAError:
        """Build the error about the shape of a role's tensor."""
        return problem(
            self.subject(role),
            found=f"the shape {list(self.tensors[role].shape)}",
            expected=expected,
            advice="Save the LoRA again with the program that made it: this file is damaged.",
        )


def lora(parts: Parts) -> Pair:
    """Convert up @ down, with LoCon's core folded in (Yeh et al. 2023, arXiv:2309.14859)."""
    return _pair(parts, "up", "down", "mid")


def loha(parts: Parts) -> Pair:
    """Convert (up1 @ down1) ∘ (up2 @ down2) (Hyeon-Woo et al. 2021, arXiv:2108.06098, prop. 1).

    up[o, pq] = up1[o, p] · up2[o, q],   down[pq, i] = down1[p, i] · down2[q, i]
    """
    up1, down1 = _pair(parts, "hada_w1_a", "hada_w1_b", "hada_t1")
    up2, down2 = _pair(parts, "hada_w2_a", "hada_w2_b", "hada_t2")
    if up1.shape[0] != up2.shape[0] or down1.shape[1:] != down2.shape[1:]:
        raise parts.wrong_shape("hada_w2_b", f"two updates of one shape, {list(down1.shape)}")
    rank = up1.shape[1] * up2.shape[1]
    _check_rank(parts, "hada_w1_b", "LoHa", rank, up1.shape[0], down1[0].numel())
    up = _times(up1[:, :, None], up2[:, None, :]).flatten(1)  # (out, rank·rank)
    down = _times(down1[:, None], down2[None]).flatten(0, 1)  # (rank·rank, in, *k)
    return up, down


def lokr(parts: Parts) -> Pair:
    """Convert w1 ⊗ w2 with w1 = up1 @ down1 and w2 = up2 @ down2 (arXiv:2309.14859, eq. 5).

    up = up1 ⊗ up2,   down = down1 ⊗ down2
    """
    up2, down2 = _pair(parts, "lokr_w2_a", "lokr_w2_b", "lokr_t2")
    up1, down1 = _first_kronecker_pair(parts)
    width = down1.shape[1] * down2[0].numel()
    rank, out = up1.shape[1] * up2.shape[1], up1.shape[0] * up2.shape[0]
    _check_rank(parts, "lokr_w2_b", "LoKr", rank, out, width)
    down = _kron(down1, down2.flatten(1)).reshape(rank, -1, *down2.shape[2:])
    return _kron(up1, up2), down


def dense(parts: Parts) -> Pair:
    """Convert a dense update, which must be numerically low-rank."""
    ((role, weight),) = parts.tensors.items()
    return dense_factors(weight, parts.subject(role))


def _first_kronecker_pair(parts: Parts) -> Pair:
    """Return w1 as a pair: as trained, or w1 and an identity on its shorter side."""
    w1 = parts.tensors.get("lokr_w1")
    if w1 is None:
        up, down = _pair(parts, "lokr_w1_a", "lokr_w1_b", "")
        return up, down.flatten(1)
    if w1.ndim != 2:
        raise parts.wrong_shape("lokr_w1", "a matrix")
    rows, columns = w1.shape
    size = min(rows, columns)
    identity = w1.new_empty(size, size) if w1.is_meta else torch.eye(size)
    return (identity, w1) if rows <= columns else (w1, identity)


def _kron(left: Tensor, right: Tensor) -> Tensor:
    """Compute left ⊗ right of two matrices; torch.kron fails on some transposed ones."""
    product = _times(left[:, None, :, None], right[None, :, None, :])
    return product.reshape(left.shape[0] * right.shape[0], -1)


def _times(left: Tensor, right: Tensor) -> Tensor:
    """Multiply elements; of meta tensors only the shape: torch's code for them loads in seconds."""
    if left.is_meta:
        return left.new_empty([max(sizes) for sizes in zip(left.shape, right.shape, strict=True)])
    return left * right


def _pair(parts: Parts, up_role: str, down_role: str, core_role: str) -> Pair:
    """Check a pair's shapes and fold its core into down.

    down'[m, j, *k] = Σ_n core[m, n, *k] · down[n, j]
    """
    up, down = parts.tensors[up_role], parts.tensors[down_role]
    core = parts.tensors.get(core_role)
    rank = down.shape[0]
    if core is not None and down[0].numel() != down.shape[1]:
        raise parts.wrong_shape(down_role, "(rank, in), with a kernel only where there is no core")
    if core is not None and core_role != "mid":
        up = up.flatten(1).T  # LyCORIS keeps (rank, out) beside a core
    if up.shape[1] != rank or up[0].numel() != rank:
        raise parts.wrong_shape(up_role, f"(out, {rank}), the rank of {parts.keys[down_role]}")
    if core is None:
        return (up, down) if core_role == "mid" else (up.flatten(1), down)
    if core.ndim < 3 or core.shape[:2] != (rank, rank):
        raise parts.wrong_shape(core_role, f"({rank}, {rank}, *kernel)")
    _check_width(parts, core_role, up.shape[0], down.shape[1] * core[0, 0].numel())
    return up, torch.einsum("mn...,nj->mj...", core, down.flatten(1))


def _check_rank(parts: Parts, role: str, kind: str, rank: int, out: int, width: int) -> None:
    """Refuse factors of more than half the full rank: the dense update would be smaller."""
    _check_width(parts, role, out, width)
    if rank > max(min(out, width) / 2, SMALL_RANK):
        raise problem(
            parts.subject(role),
            found=f"{kind} that needs rank {rank} as a plain LoRA of {out} x {width}",
            expected=f"at most {max(min(out, width) // 2, SMALL_RANK)}, half the full rank",
            advice=f"Use a {kind} of a lower rank, or extract a plain LoRA from it.",
        )


def _check_width(parts: Parts, role: str, out: int, width: int) -> None:
    """Refuse a product that is wider than every layer it could belong to."""
    if max(out, width) > parts.limits.widest:
        raise problem(
            parts.subject(role),
            found=f"the product of an update of {out} x {width}",
            expected=f"at most {parts.limits.widest} features, those of the model's widest layer",
            advice="Use a plain LoRA: this file is damaged, or made to exhaust the memory.",
        )
