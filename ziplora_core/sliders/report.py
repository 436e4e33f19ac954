"""The report of a slider's training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..lora.factors import LoraFactors
from ..training.interface import TrainedLoRA
from ..training.report import compose, loss_line, steps_line
from .options import SliderSettings


def slider_report(
    trained: TrainedLoRA,
    modules: Mapping[str, LoraFactors],
    settings: SliderSettings,
    about: Sequence[str],
    effect: Sequence[str],
) -> str:
    """Compose the report of either trainer, warnings first.

    Args:
        trained: the result of the training.
        modules: the trained factors.
        settings: the widgets.
        about: lines about the training data.
        effect: lines about the measured effect.
    """
    record = trained.record
    parameters = sum(f.down.numel() + f.up.numel() for f in modules.values())
    terms = [term for term in record.history if term != "loss"]
    warnings = [f"WARNING: {record.stopped}"] if record.failed and record.stopped else []
    return compose(
        [
            *warnings,
            *about,
            f"{len(modules)} modules ({settings.layers}), rank {settings.rank}, alpha "
            f"{settings.alpha:g}, {parameters:,} parameters",
            *effect,
            steps_line(record, settings.steps),
            *loss_line(record.history, terms),
            f"UNet evaluations: {trained.evaluations} samples",
            *trained.memory,
            *record.notes,
        ]
    )
