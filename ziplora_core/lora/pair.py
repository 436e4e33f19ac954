"""Pairs of a content LoRA and a style LoRA."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from .factors import LoRA, LoraFactors


@dataclass(frozen=True)
class LoRAPair:
    """A content and a style LoRA, each with its strength."""

    content: LoRA
    style: LoRA
    content_strength: float = 1.0
    style_strength: float = 1.0


@dataclass(frozen=True)
class ModulePair:
    """Content and style factors of one module; None where a LoRA lacks the module."""

    content: LoraFactors | None = None
    style: LoraFactors | None = None

    @property
    def factors(self) -> tuple[LoraFactors | None, LoraFactors | None]:
        return self.content, self.style

    @property
    def shared(self) -> bool:
        return self.content is not None and self.style is not None

    @property
    def one(self) -> LoraFactors:
        """Return one half that is present, e.g. for the module's shape."""
        present = self.content or self.style
        assert present is not None
        return present


def scaled(modules: Mapping[str, LoraFactors], strength: float) -> dict[str, LoraFactors]:
    """Multiply every update by `strength`."""
    return {name: replace(f, alpha=f.scale * f.rank * strength) for name, f in modules.items()}


def pair_modules(
    content: Mapping[str, LoraFactors], style: Mapping[str, LoraFactors]
) -> dict[str, ModulePair]:
    """Match two LoRAs by module name; a module of only one LoRA becomes a half pair."""
    return {
        name: ModulePair(content.get(name), style.get(name)) for name in sorted({*content, *style})
    }
