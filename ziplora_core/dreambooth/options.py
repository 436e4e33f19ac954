"""The settings of Train DreamBooth LoRA."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..training.options import TrainingOptions


@dataclass(frozen=True)
class DreamBoothSettings:
    """The widgets of TrainDreamBoothLoRA; the defaults are ZipLoRA's (arXiv:2311.13600, §4).

    Args:
        prompt: the prompt of every picture without a caption.
        class_prompt: the prompt of the subject's class; empty for no prior preservation.
        prior_weight: the weight of the class pictures' error.
        layers: one of `LAYER_CHOICES`.
        rank, alpha: the rank and alpha of the LoRA; its scale is alpha / rank.
        steps: the number of optimisation steps.
        learning_rate: the learning rate of the diffusion model's factors.
        train_text_encoder: whether factors of both text encoders are trained too.
        resolution: the side in pixels of a square training picture; others keep about its area.
        seed: the seed of all draws.
        memory: `auto`, `fast` or `low`.
        text_encoder_learning_rate: the learning rate of the text encoders' factors.
        mirror: whether the mirror image of every picture is used too.
        class_count: the number of class pictures to draw where none are given.
        literal_captions: whether captions are learned as they are written, and not in ComfyUI's
            prompt syntax.
        options: the options of the training loop.
    """

    prompt: str
    class_prompt: str = ""
    prior_weight: float = 1.0
    layers: str = "attention"
    rank: int = 64
    alpha: float = 64.0
    steps: int = 1000
    learning_rate: float = 5e-5
    train_text_encoder: bool = False
    resolution: int = 1024
    seed: int = 0
    memory: str = "auto"
    text_encoder_learning_rate: float = 5e-6
    mirror: bool = False
    class_count: int = 50
    literal_captions: bool = True
    options: TrainingOptions = field(default_factory=TrainingOptions)

    @property
    def learning_rates(self) -> list[float]:
        rates = [self.learning_rate, self.text_encoder_learning_rate]
        return rates if self.train_text_encoder else rates[:1]
