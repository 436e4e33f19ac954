"""What the sandbox changes in the shipped workflows so that they run on a CPU: size and steps.

By class type or by node title. Nothing else is overridden: the tiny models have the real names.
"""

from __future__ import annotations

from typing import Any

SIDE = 128

OVERRIDES: dict[str, dict[str, Any]] = {
    "EmptyLatentImage": {"width": SIDE, "height": SIDE},
    "KSampler": {"steps": 6},
    "ZipLoRAOptimize": {"width": SIDE, "height": SIDE},
    "TrainDreamBoothLoRA": {"resolution": SIDE, "steps": 20},
    "Learn the merge": {"steps": 20},
    "TrainConceptSlider": {"resolution": SIDE, "steps": 4},
    "TrainConceptSliderFromImages": {"resolution": SIDE, "steps": 10},
    "SliderSweep": {"steps": 4},
    "StrengthGrid": {"steps": 2},
    "UnZipLoRATrain": {"resolution": SIDE, "steps": 9},
}
