"""Inputs with which the shipped workflows show something with the miniature SDXL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from miniworld.scenes import Scene, render
from quality.sheet import as_image
from quality.sliders.attributes import BRIGHTNESS, STRETCH
from quality.subjects import CONTENT_PROMPT, JOINT_PROMPT, PAIRS, STYLE_WORD, SUBJECT

Json = dict[str, Any]

PICTURE, LOW, HIGH = "ziplora_mini_picture.png", "ziplora_mini_low", "ziplora_mini_high"
PAIR_COUNT = 12
TARGET = "a shape"
LESS, MORE = BRIGHTNESS.edited(TARGET)
CONTENT, BOTH = {"text": CONTENT_PROMPT}, {"text": JOINT_PROMPT}
STYLE = {"text": "a heart in ohwx style"}
ALONE = f"a shape in {STYLE_WORD} style"
KSAMPLER = {"seed": 1, "steps": 16, "cfg": 3, "sampler_name": "euler", "scheduler": "normal"}
OVERRIDES: dict[str, Json] = {
    "CheckpointLoaderSimple": {"ckpt_name": "mini_sdxl.safetensors"},
    "LoadTrainingImages": {"folder": "ziplora_mini_subject"},
    "Less of it": {"folder": LOW},
    "More of it": {"folder": HIGH},
    "LoadImage": {"image": PICTURE},
    "TrainingOptions": {"sample_prompts": CONTENT_PROMPT, "sample_every": 100},
    "TrainDreamBoothLoRA": {"prompt": CONTENT_PROMPT, "layers": "extended", "rank": 16,
                            "alpha": 16, "steps": 400, "learning_rate": 1e-3, "resolution": 128},
    "ZipLoRAOptimize": {"width": 128, "height": 128},
    "TrainConceptSlider": {"target": TARGET, "positive": MORE, "negative": LESS, "preserve": "",
                           "alpha": 4, "steps": 200, "learning_rate": 3e-4, "resolution": 128,
                           "trajectory": "reused"},
    "TrainConceptSliderFromImages": {"positive": TARGET, "neutral": TARGET, "alpha": 4,
                                     "steps": 300, "learning_rate": 3e-4, "resolution": 128},
    "UnZipLoRATrain": {"prompt": JOINT_PROMPT, "content_prompt": SUBJECT,
                       "style_prompt": ALONE, "steps": 200, "content_learning_rate": 5e-4,
                       "style_learning_rate": 5e-4, "resolution": 128, "layers": "extended",
                       "images_per_validation": True},
    "EmptyLatentImage": {"width": 128, "height": 128},
    "CLIPTextEncode": {"text": "a heart"},
    **dict.fromkeys(("Content prompt: the subject alone", "Prompt of the subject alone"), CONTENT),
    **dict.fromkeys(("Style prompt: the style alone", "Prompt of the style alone"), STYLE),
    **dict.fromkeys(("Joint prompt: the subject in the style", "Prompt: subject and style",
                     "Prompt of the picture"), BOTH),
    "Prompt: your subject somewhere else": CONTENT,
    "Negative prompt": {"text": ""},
    "KSampler": KSAMPLER,
    "StrengthGrid": KSAMPLER,
    "JudgePictures": KSAMPLER,
    "FindMerge": KSAMPLER,
    "SliderSweep": KSAMPLER,
}  # fmt: skip
"""By class type or by node title, in this order."""
KEPT = {
    "ZipLoRAOptimize": [],
    **{trainer: list(OVERRIDES[trainer]) for trainer in OVERRIDES if "Train" in trainer},
}
"""Nodes whose picture shows a run and its report; those of all others show the shipped state."""


def write_inputs(folder: Path) -> None:
    """Write the pictures of the trainings that the demo does not have."""
    as_image(render(Scene(PAIRS[0].subject, PAIRS[0].style, radius=0.55))).save(folder / PICTURE)
    for name, pictures in zip((LOW, HIGH), STRETCH.pictures(2.0), strict=True):
        (folder / name).mkdir(exist_ok=True)
        for number, picture in enumerate(pictures[:PAIR_COUNT]):
            as_image(picture.movedim(-1, 0)).save(folder / name / f"{number:02}.png")
