"""The needs of the public Concept Sliders and the public ZipLoRA, beside a file's spelling.

Both expect certain modules of SDXL: Concept Sliders loads with torch's strict rules (LoRANetwork in
github.com/rohitgandikota/sliders, lora.py), ZipLoRA looks up every attention linear
(github.com/mkshing/ziplora-pytorch, utils.py).
"""

from __future__ import annotations

from collections.abc import Mapping

from ..lora.factors import LoraFactors
from ..lora.layers import choose_layers

SLIDERS_MODULES = {
    "xattn_strict": 210,
    "xattn": 280,
    "selfattn": 280,
    "noxattn": 346,
    "full": 626,
}
"""Number of SDXL's modules by the sliders' `train_method`, the narrower ones first."""
ATTENTION_MODULES = 560


def sliders_method(modules: Mapping[str, LoraFactors]) -> tuple[str, list[str]]:
    """Return the `train_method` with which the sliders' program loads these modules, and notes."""
    kernels = [(name, factors.down.ndim - 2) for name, factors in modules.items()]
    fitting = (m for m in SLIDERS_MODULES if len(choose_layers(m, kernels)) == len(modules))
    choice = next(fitting, "full")
    whole, method = SLIDERS_MODULES[choice], choice.replace("_", "-")
    found = choose_layers(choice, kernels)
    rank = max(factors.rank for factors in modules.values())
    notes = [f"for LoRANetwork(unet, rank={rank}, alpha=1, train_method='{method}')"]
    if len(found) != len(modules) or len(found) != whole:
        others = len(modules) - len(found)
        notes.insert(
            0,
            f"WARNING: the public Concept Sliders load a file only with all {whole} modules of "
            f"{method} and no others: this LoRA has {len(found)} of them"
            + (f", and {others} others" if others else ""),
        )
    return method, notes


def sliders_title(modules: Mapping[str, LoraFactors], method: str) -> str:
    """Return the part of a slider's file name from which the public program reads its settings."""
    return f"alpha1.0_rank{max(factors.rank for factors in modules.values())}_{method}"


def ziplora_notes(modules: Mapping[str, LoraFactors]) -> list[str]:
    """Say what the public ZipLoRA misses in these modules, or does not read of them."""
    found = len(choose_layers("attention", [(name, 0) for name in modules]))
    notes = []
    if found != ATTENTION_MODULES:
        notes.append(
            f"WARNING: the public ZipLoRA needs all {ATTENTION_MODULES} attention layers of SDXL, "
            f"and stops where one is missing: this LoRA has {found}"
        )
    if others := len(modules) - found:
        notes.append(f"the public ZipLoRA does not read {others} modules outside of attention")
    return notes
