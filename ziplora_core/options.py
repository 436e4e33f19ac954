"""How a training loop behaves: the fields of the TrainingOptions node."""

from __future__ import annotations

from dataclasses import dataclass

OPTIMISERS = ("adam", "adamw", "sgd")
SCHEDULES = ("constant", "cosine", "linear")
RESUME = ("auto", "restart")
MEMORY = ("auto", "fast", "low")


@dataclass(frozen=True)
class TrainingOptions:
    """Settings shared by every trainer; the defaults are right for most runs.

    Args:
        optimiser: `adam` (eps 1e-15: coefficient gradients are tiny), `adamw`, `sgd`.
        schedule: learning rate over the run: `constant`, `cosine` or `linear` to zero.
        warm_up_steps: steps over which the learning rate rises from zero.
        batch: draws per concept in one forward pass.
        accumulation: passes whose gradients are summed into one step.
        gradient_clip: largest norm of the gradient, 0 for no clipping.
        min_snr_gamma: γ of min-SNR weighting, 0 for equal weights.
        checkpoint_every: steps between checkpoints, 0 for none but the one on cancel.
        early_stop: stop on the method's own rule or on a plateau.
        held_out_draws: draws per concept for the retention figures, 0 to leave them out.
        resume: `auto` goes on from a checkpoint of the same inputs, `restart` ignores it.
    """

    optimiser: str = "adam"
    schedule: str = "constant"
    warm_up_steps: int = 0
    batch: int = 1
    accumulation: int = 1
    gradient_clip: float = 1.0
    min_snr_gamma: float = 0.0
    checkpoint_every: int = 50
    early_stop: bool = True
    held_out_draws: int = 24
    resume: str = "auto"


@dataclass(frozen=True)
class ZipSettings:
    """The widgets of ZipLoRAOptimize.

    Args:
        steps: optimisation steps.
        learning_rate: of the merger coefficients; the paper's is 0.01.
        similarity, similarity_weight: form of the penalty and λ.
        layers: one of `LAYER_CHOICES`.
        width, height: pixels of the pictures drawn where there are no reference latents.
        seed: of every draw.
        memory: `auto`, `fast` or `low`.
        options: the loop's.
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
    options: TrainingOptions = TrainingOptions()
