"""Sizes and steps with which the sandbox runs the shipped workflows on a CPU.

The keys are class types or node titles. The tiny models have the names of the real ones; only text
encoders of other families than SDXL's come from a node of their own.
"""

from __future__ import annotations

import copy
from typing import Any

SIDE = 64

OVERRIDES: dict[str, dict[str, Any]] = {
    "EmptyLatentImage": {"width": SIDE, "height": SIDE},
    "EmptySD3LatentImage": {"width": SIDE, "height": SIDE},
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


def with_small_encoders(workflow: dict[str, Any]) -> dict[str, Any]:
    """Replace what loads text encoders: ComfyUI builds those in full size, up to 8 billion weights.

    Returns:
        A copy of the workflow.
    """
    workflow = copy.deepcopy(workflow)
    for node in workflow["nodes"]:
        if node["type"] in ("CLIPLoader", "DualCLIPLoader"):
            *_, kind, _device = node["widgets_values"]
            node |= {"type": "SandboxTextEncoder", "widgets_values": [kind]}
    return workflow
