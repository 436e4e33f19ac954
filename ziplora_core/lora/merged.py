"""The merge of a content and a style LoRA: exact by concatenation, or reduced in rank."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..errors import problem
from .blocks import Blocks, network_order, refuse_other_blocks, weights_of
from .factors import LoraFactors
from .origin import Origin
from .pair import ModulePair, pair_modules, scaled
from .svd import Approximation, inner_product, overall_error, truncate

_EVERYWHERE: Blocks = {}
_STRENGTHS = "ziplora.strengths"
NEGATIVE_STRENGTH = "ziplora.negative_strength"
"""The metadata that says with which negative strength a merge is to be drawn."""


@dataclass(frozen=True)
class MergedLoRA:
    """A content and a style LoRA with their coefficients: the value of a MERGED_LORA.

    Args:
        pairs: UNet factors by kohya module name (sgm names), strengths folded in.
        coefficients: `(2, in)` per module, row 0 content, row 1 style; a module without an entry
            has coefficients of 1.
        text_encoder: text-encoder factors by kohya module name; never scaled by coefficients.
        metadata: strings for the file: `ziplora.*` and those of the sources.
        separable: whether content and style can have different strengths.
        prompt_separated: whether UnZipLoRA made it, so that each half needs its own prompt.
        origin: the training that it is the result of.
    """

    pairs: Mapping[str, ModulePair]
    coefficients: Mapping[str, Tensor] = field(default_factory=dict)
    text_encoder: Mapping[str, ModulePair] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    separable: bool = True
    prompt_separated: bool = False
    origin: Origin | None = None

    @property
    def negative_strength(self) -> float | None:
        """The negative strength that the merge was made for; None if it says none."""
        said = self.metadata.get(NEGATIVE_STRENGTH, "")
        return float(said) if re.fullmatch(r"[01](\.\d+)?", said) else None

    def modules(
        self,
        content_strength: float = 1.0,
        style_strength: float = 1.0,
        blocks: Blocks = _EVERYWHERE,
    ) -> dict[str, LoraFactors]:
        """Join every pair, UNet and text encoders, into one LoRA of rank r_c + r_s (content first).

        A half whose strength is 0 is left out rather than multiplied by zero. The weights in
        `blocks` multiply the strengths in the UNet.

        Raises:
            ZipLoRAError: `blocks` are those of another network.
        """

        refuse_other_blocks(blocks, self.pairs)

        def strengths(name: str) -> tuple[float, float]:
            content, style = weights_of(blocks, name) if name in self.pairs else (1.0, 1.0)
            return content_strength * content, style_strength * style

        joined = {
            name: join(pair, self.coefficients.get(name), strengths(name))
            for name, pair in {**self.pairs, **self.text_encoder}.items()
        }
        return {name: factors for name, factors in joined.items() if factors is not None}

    def at(self, content_strength: float, style_strength: float) -> MergedLoRA:
        """Fold strengths in: at 1 and 1 the result is what this merge is at these strengths.

        Args:
            content_strength, style_strength: factors on both parts, UNet and text encoders; a half
                whose strength is 0 is left out. `ziplora.strengths` in the metadata has them.

        Raises:
            ZipLoRAError: unequal strengths for a merge that is not separable.
        """
        strengths = (content_strength, style_strength)
        self.check_strengths([strengths])
        said, before = "{:g} / {:g}".format(*strengths), self.metadata.get(_STRENGTHS)
        return replace(
            self,
            pairs=_at(self.pairs, *strengths),
            text_encoder=_at(self.text_encoder, *strengths),
            metadata={**self.metadata, _STRENGTHS: f"{before}, then {said}" if before else said},
            origin=None if strengths != (1.0, 1.0) else self.origin,
        )

    def check_strengths(self, strengths: Sequence[tuple[float, float]]) -> None:
        """Refuse different content and style strengths where the two are one LoRA.

        Raises:
            ZipLoRAError: the strengths of a pair differ, and this merge is not separable.
        """
        unequal = [pair for pair in strengths if pair[0] != pair[1]]
        if unequal and not self.separable:
            raise problem(
                "content_strength, style_strength and blocks",
                found="{:g} and {:g}".format(*unequal[0]),
                expected="equal strengths: content and style are one LoRA in this merge",
                advice="Set both to the same value, or merge with method=direct and rank 0.",
            )


def _at(
    pairs: Mapping[str, ModulePair], content_strength: float, style_strength: float
) -> dict[str, ModulePair]:
    """Multiply every update by its strength, without copying factors."""

    def half(role: str, strength: float) -> dict[str, LoraFactors]:
        halves = {name: getattr(pair, role) for name, pair in pairs.items()}
        present = {name: factors for name, factors in halves.items() if factors is not None}
        return scaled(present, strength) if strength else {}

    return pair_modules(half("content", content_strength), half("style", style_strength))


def join(
    pair: ModulePair, columns: Tensor | None = None, strengths: tuple[float, float] = (1.0, 1.0)
) -> LoraFactors | None:
    """Concatenate a pair into one exact LoRA; None when no half has a strength other than 0.

        down' = [down_c · m_c ; down_s · m_s]    up' = [w_c scale_c up_c , w_s scale_s up_s]

    The result equals w_c (m_c ⊗ delta_c) + w_s (m_s ⊗ delta_s), without an SVD or a dense delta.

    Args:
        pair: content and style factors.
        columns: merger coefficients `(2, in)`, None for the direct merge (all ones).
        strengths: w_c and w_s.
    """
    downs, ups = [], []
    for branch, (factors, strength) in enumerate(zip(pair.factors, strengths, strict=True)):
        if factors is None or strength == 0:
            continue
        down = factors.down if columns is None else scale_columns(factors.down, columns[branch])
        downs.append(down)
        ups.append(strength * factors.scale * factors.up)
    if not downs:
        return None
    return LoraFactors(torch.cat(downs), torch.cat(ups, dim=1))


def scale_columns(down: Tensor, column: Tensor) -> Tensor:
    """Multiply input feature j of `down` `(rank, in, *k)` by `column[j]`."""
    return down * column.view(1, -1, *(1,) * (down.ndim - 2))


def scale_rows(up: Tensor, row: Tensor) -> Tensor:
    """Multiply output feature j of `up` `(out, rank, *1)` by `row[j]`."""
    return up * row.view(-1, *(1,) * (up.ndim - 1))


def truncated(merged: MergedLoRA, rank: int) -> tuple[MergedLoRA, float]:
    """Reduce every joined module to `rank`; the result is no longer separable.

    A merge in which no module exceeds `rank` is returned unchanged.

    Returns:
        The merge, and ‖delta − delta_r‖_F / ‖delta‖_F over all modules together.
    """
    if all(factors.rank <= rank for factors in merged.modules().values()):
        return merged, 0.0
    return approximated(merged, lambda factors: truncate(factors, rank))


def approximated(
    merged: MergedLoRA, reduce: Callable[[LoraFactors], Approximation]
) -> tuple[MergedLoRA, float]:
    """Replace every joined module by an approximation; returns the same as `truncated`."""
    parts = {name: reduce(factors) for name, factors in merged.modules().items()}
    pairs = {name: ModulePair(content=part.factors) for name, part in parts.items()}
    result = MergedLoRA(
        pairs={name: pairs[name] for name in merged.pairs if name in pairs},
        text_encoder={name: pairs[name] for name in merged.text_encoder if name in pairs},
        metadata=merged.metadata,
        separable=False,
    )
    return result, overall_error(parts.values())


def layer_cosine(pair: ModulePair, columns: Tensor | None = None) -> float:
    """Compute the layer cosine of one module that both LoRAs have; 0 where one update is zero.

    cos = ⟨m_c⊗delta_c, m_s⊗delta_s⟩_F / (‖m_c⊗delta_c‖_F ‖m_s⊗delta_s‖_F)
    """
    content = join(ModulePair(content=pair.content), columns)
    style = join(ModulePair(style=pair.style), columns)
    assert content is not None and style is not None
    norms = inner_product(content, content) * inner_product(style, style)
    return inner_product(content, style) / norms**0.5 if norms > 0 else 0.0


@dataclass(frozen=True)
class LayerCosine:
    """The layer cosine of one module, in the direct merge (m = 1) and with the coefficients."""

    before: float
    after: float


def layer_cosines(merged: MergedLoRA) -> dict[str, LayerCosine]:
    """Compute the layer cosines of every module that both LoRAs have, in network order."""
    shared = {name: pair for name, pair in merged.pairs.items() if pair.shared}
    cosines = {}
    for name in network_order(shared):
        before, columns = layer_cosine(shared[name]), merged.coefficients.get(name)
        after = before if columns is None else layer_cosine(shared[name], columns)
        cosines[name] = LayerCosine(before, after)
    return cosines


def column_cosines(pair: ModulePair) -> Tensor:
    """Compute cos(delta_c[:, j], delta_s[:, j]) of every input column j, `(in,)`, on the factors.

    A convolution's column is one input channel with all kernel positions.
    """
    content, style = pair.content, pair.style
    assert content is not None and style is not None

    def dots(a: LoraFactors, b: LoraFactors) -> Tensor:
        ups = a.scale * b.scale * (a.up.flatten(1).T @ b.up.flatten(1))
        columns_a, columns_b = (f.down.reshape(*f.down.shape[:2], -1) for f in (a, b))
        return torch.einsum("rjk,rs,sjk->j", columns_a, ups, columns_b)

    norms = (dots(content, content) * dots(style, style)).clamp_min(0).sqrt()
    return dots(content, style) / norms.clamp_min(torch.finfo(norms.dtype).tiny)
