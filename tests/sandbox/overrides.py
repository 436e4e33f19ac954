"""Sizes and steps with which the sandbox runs the shipped workflows on a CPU.

The keys are class types or node titles. Nothing else is overridden: the tiny models have the names
of the real ones.
"""

from __future__ import annotations

from typing import Any

SIDE = 64

OVERRIDES: dict[str, dict[str, Any]] = {
    "EmptyLatentImage": {"width": SIDE, "height": SIDE},
    "KSampler": {"steps": 6},
    "TrainingOptions": {"held_out_draws": 4},
    "ZipLoRAOptimize": {"width": SIDE, "height": SIDE, "calibration_states": 6},
    "TrainDreamBoothLoRA": {"resolution": SIDE, "steps": 20},
    "Learn the merge": {"steps": 20},
    "TrainConceptSlider": {"resolution": SIDE, "steps": 4},
    "TrainConceptSliderFromImages": {"resolution": SIDE, "steps": 10},
    "SliderSweep": {"steps": 4},
    "StrengthGrid": {"steps": 2},
    "JudgePictures": {"steps": 2},
    "FindMerge": {"steps": 2},
    "UnZipLoRATrain": {"resolution": SIDE, "steps": 9},
}
