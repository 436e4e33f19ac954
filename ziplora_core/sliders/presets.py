"""Prompts for sliders of the kinds shown in the Concept Sliders paper (arXiv:2311.12092)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preset:
    """The prompts of one slider, as inputs of TrainConceptSlider.

    Args:
        target, positive, negative: see `TextSliderSettings`.
        preserve: concepts that the slider must not change, one a line.
    """

    target: str
    positive: str
    negative: str
    preserve: str = ""


_PEOPLE = "male\nfemale"

PRESETS = {
    "age": Preset(
        "person",
        "person, very old, aged, wrinkly, white hair",
        "person, very young, youthful, smooth skin",
        _PEOPLE,
    ),
    "smile": Preset(
        "person",
        "person, smiling, laughing, happy, joyful expression",
        "person, frowning, sad, unhappy expression",
        _PEOPLE,
    ),
    "curly hair": Preset(
        "person", "person, very curly hair, ringlets", "person, very straight, sleek hair", _PEOPLE
    ),
    "details": Preset(
        "",
        "high detail, intricate, sharp focus, elaborate textures, hyper realistic",
        "low detail, blurry, flat, plain, simple shapes",
    ),
    "fix hands": Preset(
        "",
        "realistic hands, five fingers, perfect anatomy, natural limbs",
        "poorly drawn hands, extra fingers, missing fingers, distorted limbs, bad anatomy",
    ),
    "weather": Preset(
        "landscape",
        "landscape, dark storm clouds, heavy rain, lightning",
        "landscape, clear blue sky, bright sunshine",
        "city\nforest\nmountains",
    ),
    "season": Preset(
        "landscape",
        "landscape in deep winter, covered with snow, frost",
        "landscape in high summer, green leaves, flowers",
        "city\nforest\nmountains",
    ),
    "night": Preset(
        "scene", "scene at night, dark, moonlight", "scene at noon, bright daylight",
        "indoor\noutdoor",
    ),
    "cartoon style": Preset(
        "", "cartoon, flat colours, bold outlines, drawn animation", "realistic photograph, natural"
    ),
    "painting style": Preset(
        "", "oil painting, thick brush strokes, canvas texture", "realistic photograph, natural"
    ),
}  # fmt: skip
