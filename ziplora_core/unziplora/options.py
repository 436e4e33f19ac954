"""The settings of UnZipLoRA Train."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..training.options import TrainingOptions

MERGERS = ("learned", "disjoint")


@dataclass(frozen=True)
class UnZipLoRASettings:
    """The widgets of UnZipLoRATrain; the defaults are its authors' (arXiv:2412.04465, train.sh).

    Args:
        prompt: the joint prompt of the pictures, with subject and style.
        content_prompt, style_prompt: the same prompt without the style, and without the subject.
        rank: the rank of each LoRA; their scale is 1.
        steps: the number of optimisation steps.
        content_learning_rate, style_learning_rate: the learning rates of the factors.
        weight_learning_rate: the learning rate of the mergers.
        similarity_weight: λ, the weight of the mean |m_c m_s| over the features.
        column_separation: whether each LoRA has only some output features of every layer, given by
            its feature masks.
        block_separation: whether each LoRA has all features in its own blocks.
        sample_times: the number of times features are chosen.
        column_ratio: the share of the features that each LoRA gets each time.
        images_per_validation: whether validation pictures are drawn during training.
        saves_per_validation: whether both LoRAs are saved during training.
        validation_steps: the interval of both, in steps.
        resolution: the side in pixels of a square training picture; others keep about its area.
        seed: the seed of all draws.
        memory: `auto`, `fast` or `low`.
        mergers: `learned` weighs the LoRAs where both have a feature; with `disjoint` the owner of
            a block has its features alone.
        importance_samples: the number of noisy pictures by which features are chosen.
        alone_share: the share of the samples that one LoRA learns alone, half of them content and
            half style; 0 is as published.
        layers: one of `LAYER_CHOICES`.
        class_prompt: the prompt of the class pictures.
        prior_weight: the weight of the class pictures' error.
        options: the options of the training loop; its first three sample prompts are those of the
            validation pictures: joint, content, style.
    """

    prompt: str
    content_prompt: str
    style_prompt: str
    rank: int = 64
    steps: int = 600
    content_learning_rate: float = 5e-5
    style_learning_rate: float = 5e-5
    weight_learning_rate: float = 5e-3
    similarity_weight: float = 0.5
    column_separation: bool = True
    block_separation: bool = True
    sample_times: int = 3
    column_ratio: float = 0.1
    images_per_validation: bool = False
    saves_per_validation: bool = False
    validation_steps: int = 50
    resolution: int = 1024
    seed: int = 0
    memory: str = "auto"
    mergers: str = "learned"
    importance_samples: int = 4
    alone_share: float = 0.5
    layers: str = "attention"
    class_prompt: str = ""
    prior_weight: float = 1.0
    options: TrainingOptions = field(default_factory=TrainingOptions)

    @property
    def learning_rates(self) -> list[float]:
        return [self.content_learning_rate, self.style_learning_rate, self.weight_learning_rate]
