"""The settings of both slider trainers."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..training.options import TrainingOptions

ACTIONS = ("enhance", "erase")


TRAJECTORIES = ("exact", "reused")


@dataclass(frozen=True)
class SliderSettings:
    """The settings common to sliders from prompts and from picture pairs.

    The defaults are the public implementation's for SDXL (rohitgandikota/sliders).

    Args:
        layers: one of `SLIDER_LAYERS`.
        rank, alpha: the rank and alpha of the LoRA; its scale is alpha / rank.
        steps: the number of optimisation steps.
        learning_rate: the learning rate of the factors.
        resolution: the side in pixels of the training pictures.
        seed: the seed of all draws.
        memory: `auto`, `fast` or `low`.
        range: the largest scale in either direction; the effect is measured at both ends.
        start_percent: the share of the sampling after which the slider starts to act.
        options: the options of the training loop.
    """

    layers: str = "noxattn"
    rank: int = 4
    alpha: float = 1.0
    steps: int = 1000
    learning_rate: float = 2e-4
    resolution: int = 512
    seed: int = 0
    memory: str = "auto"
    range: float = 2.0
    start_percent: float = 0.25
    options: TrainingOptions = field(default_factory=TrainingOptions)

    @property
    def learning_rates(self) -> list[float]:
        return [self.learning_rate]


@dataclass(frozen=True)
class TextSliderSettings(SliderSettings):
    """The widgets of TrainConceptSlider.

    Args:
        target: the prompt of the subject that the slider acts on; empty for everything.
        positive, negative: the prompts of both ends of the slider.
        neutral: the prompt of the starting point; empty for the target.
        preserve: concepts that the slider must not change, one a line; each sample has one of them
            before its prompts.
        guidance: η, the factor on the difference between the positive and negative predictions.
        action: `enhance` for towards the positive prompt, `erase` for away from it.
        trajectory: `exact` for one denoising trajectory per step, `reused` for one per several.
    """

    target: str = ""
    positive: str = ""
    negative: str = ""
    neutral: str = ""
    preserve: str = ""
    guidance: float = 4.0
    action: str = "enhance"
    trajectory: str = "exact"


@dataclass(frozen=True)
class PairSliderSettings(SliderSettings):
    """The widgets of TrainConceptSliderFromImages.

    Args:
        positive, neutral: the prompts of the high and the low pictures; both may be empty.
    """

    positive: str = ""
    neutral: str = ""
    learning_rate: float = 1e-5
