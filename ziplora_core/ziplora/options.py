"""The settings of ZipLoRA Optimize."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..training.options import TrainingOptions

SOLVERS = ("adam", "closed_form", "closed_form_then_adam")


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
    """

    steps: int = 100
    learning_rate: float = 0.01
    similarity: str = "cosine"
    similarity_weight: float = 0.01
    layers: str = "attention"
    width: int = 1024
    height: int = 1024
    seed: int = 0
    memory: str = "auto"
    options: TrainingOptions = field(default_factory=TrainingOptions)
    solver: str = "closed_form"
    passes: int = 2
    calibration_states: int = 25

    @property
    def gradient_steps(self) -> int:
        return 0 if self.solver == "closed_form" else self.steps

    @property
    def closed_form_samples(self) -> int:
        return 0 if self.solver == "adam" else self.calibration_states
