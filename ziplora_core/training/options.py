"""Options of the training loop: the fields of the TrainingOptions node."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

OPTIMISERS = ("auto", "adam", "adamw", "adamw_8bit", "sgd")
SCHEDULES = ("constant", "cosine", "linear")
RESUME = ("auto", "restart")
MEMORY = ("auto", "fast", "low")


@dataclass(frozen=True)
class TrainingOptions:
    """Options that all trainers share; the defaults are right for most runs.

    Args:
        optimiser: `auto` for the method's own (`adam` for merger coefficients, `adamw` for LoRAs),
            or `adam`, `adamw`, `adamw_8bit`, `sgd`.
        schedule: learning rate over the run: `constant`, `cosine` or `linear` to zero.
        warm_up_steps: number of steps over which the learning rate rises from zero.
        batch: noisy samples per concept in one forward pass.
        accumulation: number of forward passes whose gradients form one step.
        gradient_clip: largest norm of the gradient, 0 for no clipping.
        min_snr_gamma: γ of min-SNR weighting, 0 for equal weights.
        checkpoint_every: steps between checkpoints; with 0 only on cancel and at the end.
        early_stop: whether to stop by the method's own rule; only ZipLoRA has one.
        held_out_draws: noisy samples per concept for the retention figures, 0 to leave them out.
        resume: `auto` continues from a checkpoint of the same inputs, `restart` ignores it.
        caption_dropout: share of the draws in which a picture has an empty prompt, 0…1.
        sample_every: steps between sample pictures, 0 for none.
        sample_prompts: one prompt per line; empty for the training prompt.
    """

    optimiser: str = "auto"
    schedule: str = "constant"
    warm_up_steps: int = 0
    batch: int = 1
    accumulation: int = 1
    gradient_clip: float = 1.0
    min_snr_gamma: float = 0.0
    checkpoint_every: int = 50
    early_stop: bool = True
    held_out_draws: int = 24
    resume: str = "auto"
    caption_dropout: float = 0.0
    sample_every: int = 250
    sample_prompts: str = ""

    @property
    def samples(self) -> list[str]:
        """The sample prompts, as a list."""
        return [line.strip() for line in self.sample_prompts.splitlines() if line.strip()]


def _preset(**changed: int) -> dict[str, Any]:
    """Return the values that a preset sets: the defaults, but for some."""
    return {f.name: f.default for f in fields(TrainingOptions) if f.name in _BY_PRESET} | changed


_BY_PRESET = {
    *("optimiser", "schedule", "warm_up_steps", "batch", "accumulation", "gradient_clip"),
    *("min_snr_gamma", "checkpoint_every", "early_stop", "held_out_draws", "caption_dropout"),
    "sample_every",
}
PRESETS: dict[str, dict[str, Any]] = {
    "custom": {},
    "as published": _preset(),
    "fast": _preset(held_out_draws=4, sample_every=0, checkpoint_every=200),
    "low memory": _preset(held_out_draws=4, sample_every=0),
}
"""Values of the node's widgets by the name of a preset; `custom` sets none."""
