"""The settings of ZipLoRA Optimize."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..training.noisy_samples import TEACHERS, Teacher
from ..training.options import TrainingOptions

SOLVERS = ("adam", "closed_form", "closed_form_then_adam", "adam_as_published")
_AS_PUBLISHED = SOLVERS[-1]
_PUBLISHED = {
    "steps": 100,
    "learning_rate": 0.01,
    "similarity": "cosine",
    "similarity_weight": 0.01,
    "layers": "attention",
    "negative_strength": 1.0,
}
"""ZipLoRA's settings (arXiv:2311.13600, App. A); `negative_strength` is that of any loader."""


@dataclass(frozen=True)
class ZipLoRASettings:
    """The widgets of ZipLoRAOptimize.

    Args:
        steps: the number of optimisation steps.
        learning_rate: the learning rate of the merger coefficients; the paper's is 0.01.
        similarity, similarity_weight: the form of the penalty and its weight λ.
        layers: one of `LAYER_CHOICES`.
        width, height: the size in pixels of pictures drawn in place of reference latents.
        seed: the seed of all draws.
        memory: `auto`, `fast` or `low`.
        options: the options of the training loop.
        solver: one of `SOLVERS`.
        passes: the number of passes of the closed form.
        calibration_states: the number of samples per concept for the closed form.
        ridge: the weight that holds the closed form's coefficients at 1.
        bounded: whether the closed form holds its coefficients between 0 and 2.
        joint_content, joint_style: the strengths of both LoRAs at the joint prompt, to which the
            merge is matched there.
        joint_weight: the weight of the joint prompt, relative to each LoRA's own.
        negative_strength: the factor on the LoRAs in guidance's unconditional half while reference
            pictures are drawn, as the merge will be drawn.
    """

    steps: int = 100
    learning_rate: float = 0.01
    similarity: str = "cosine"
    similarity_weight: float = 0.001
    layers: str = "attention"
    width: int = 1024
    height: int = 1024
    seed: int = 0
    memory: str = "auto"
    options: TrainingOptions = field(default_factory=TrainingOptions)
    solver: str = "closed_form"
    passes: int = 2
    calibration_states: int = 25
    ridge: float = 0.03
    bounded: bool = True
    joint_content: float = 0.9
    joint_style: float = 0.7
    joint_weight: float = 4.0
    negative_strength: float = 0.0

    def resolved(self) -> ZipLoRASettings:
        """Put the published settings in place of the solver that is named after them."""
        return replace(self, **_PUBLISHED) if self.as_published else self

    @property
    def as_published(self) -> bool:
        return self.solver == _AS_PUBLISHED

    @property
    def teachers(self) -> tuple[Teacher, ...]:
        """The teachers at the content's, the style's and the joint prompt."""
        return (*TEACHERS[:2], (self.joint_content, self.joint_style))

    @property
    def weights(self) -> tuple[float, ...]:
        """The weights of the content's, the style's and the joint prompt."""
        return 1.0, 1.0, self.joint_weight

    @property
    def gradient_steps(self) -> int:
        return 0 if self.solver == "closed_form" else self.steps

    @property
    def closed_form_samples(self) -> int:
        return 0 if self.solver in ("adam", _AS_PUBLISHED) else self.calibration_states
