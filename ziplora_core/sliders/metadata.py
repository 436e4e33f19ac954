"""The file metadata of a slider's training."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass
from typing import Any

from ..files.metadata import prediction_type
from ..training.interface import TrainedLoRA
from .options import SliderSettings

_USE_KEY = "ziplora.slider"


def slider_metadata(
    trained: TrainedLoRA, settings: SliderSettings, described: Mapping[str, Any]
) -> dict[str, str]:
    """Compose the `ss_*`, `modelspec.*` and `ziplora.*` strings, without dates or paths.

    `ziplora.slider` holds `described` and how the slider is meant to be used; see `slider_use`.
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
        **prediction_type(trained.v_prediction, trained.flow),
        "modelspec.usage_hint": f"a slider: strength −{settings.range:g} … {settings.range:g}, "
        f"from {settings.start_percent:.0%} of the sampling on",
        "ziplora.method": "concept slider",
        _USE_KEY: json.dumps(slider),
        "ziplora.settings": json.dumps(asdict(settings)),
    }


@dataclass(frozen=True)
class SliderUse:
    """The scales, `low` to `high`, and the share of the sampling that a slider was trained for."""

    low: float
    high: float
    start_percent: float


def slider_use(metadata: Mapping[str, str]) -> SliderUse | None:
    """Read how a slider of this pack is meant to be used; None for other LoRAs or bad values."""
    try:
        said = json.loads(metadata[_USE_KEY])
        low, high = said["range"]
        use = SliderUse(float(low), float(high), float(said["start_percent"]))
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        return None  # metadata from other programs may hold anything
    return use if use.low < use.high and all(map(math.isfinite, astuple(use))) else None
