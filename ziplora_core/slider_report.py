"""What a slider says of its training: in the report, and in its file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from typing import Any

from .lora import LoraFactors
from .options import SliderSettings
from .report import compose, loss_line, steps_line
from .trainable import TrainedLoRA

_USE_KEY = "ziplora.slider"


def slider_report(
    trained: TrainedLoRA,
    modules: Mapping[str, LoraFactors],
    settings: SliderSettings,
    about: Sequence[str],
    effect: Sequence[str],
) -> str:
    """Compose the report of either trainer, warnings first; `effect` is what was seen of it."""
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


def slider_metadata(
    trained: TrainedLoRA, settings: SliderSettings, described: Mapping[str, Any]
) -> dict[str, str]:
    """Compose the `ss_*`, `modelspec.*` and `ziplora.*` strings; no dates, no paths.

    `ziplora.slider` says what it does and how it is meant to be used; see `slider_use`.
    """
    optimiser = settings.options.optimiser
    said = {
        "steps": trained.record.step,
        "max_train_steps": settings.steps,
        "learning_rate": settings.learning_rate,
        "unet_lr": settings.learning_rate,
        "optimizer": "adamw" if optimiser == "auto" else optimiser,
        "lr_scheduler": settings.options.schedule,
        "seed": settings.seed,
        "sd_model_name": trained.checkpoint or None,
        "resolution": f"({settings.resolution}, {settings.resolution})",
    }
    slider = {
        **described,
        "layers": settings.layers,
        "range": [-settings.range, settings.range],
        "start_percent": settings.start_percent,
    }
    return {
        **{f"ss_{name}": str(value) for name, value in said.items()},
        "modelspec.resolution": f"{settings.resolution}x{settings.resolution}",
        "modelspec.prediction_type": "v" if trained.v_prediction else "epsilon",
        "modelspec.usage_hint": f"a slider: strength −{settings.range:g} … {settings.range:g}, "
        f"from {settings.start_percent:.0%} of the steps on",
        "ziplora.method": "concept slider",
        _USE_KEY: json.dumps(slider),
        "ziplora.settings": json.dumps(asdict(settings)),
    }


@dataclass(frozen=True)
class SliderUse:
    """How a slider is meant to be used: from `low` to `high`, after a share of the sampling."""

    low: float
    high: float
    start_percent: float


def slider_use(metadata: Mapping[str, str]) -> SliderUse | None:
    """Read how a slider of ours is meant to be used; None for any other LoRA, and for nonsense."""
    try:
        said = json.loads(metadata[_USE_KEY])
        low, high = said["range"]
        use = SliderUse(float(low), float(high), float(said["start_percent"]))
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        return None  # anyone can write anything there
    return use if use.low < use.high and all(map(math.isfinite, astuple(use))) else None
