"""How a training loop behaves: the fields of the TrainingOptions node."""

from __future__ import annotations

from dataclasses import dataclass

OPTIMISERS = ("auto", "adam", "adamw", "adamw_8bit", "sgd")
SCHEDULES = ("constant", "cosine", "linear")
RESUME = ("auto", "restart")
MEMORY = ("auto", "fast", "low")
ACTIONS = ("enhance", "erase")
TRAJECTORIES = ("exact", "reused")
MERGERS = ("learned", "disjoint")
SOLVERS = ("adam", "closed_form", "closed_form_then_adam")


@dataclass(frozen=True)
class TrainingOptions:
    """Settings shared by every trainer; the defaults are right for most runs.

    Args:
        optimiser: `auto` takes the method's own (`adam` for merger coefficients, `adamw` for
            LoRAs); or `adam`, `adamw`, `adamw_8bit`, `sgd`.
        schedule: learning rate over the run: `constant`, `cosine` or `linear` to zero.
        warm_up_steps: steps over which the learning rate rises from zero.
        batch: draws per concept in one forward pass.
        accumulation: passes whose gradients are summed into one step.
        gradient_clip: largest norm of the gradient, 0 for no clipping.
        min_snr_gamma: γ of min-SNR weighting, 0 for equal weights.
        checkpoint_every: steps between checkpoints, 0 for none but those on cancel and at the end.
        early_stop: stop on the method's own rule or on a plateau.
        held_out_draws: draws per concept for the retention figures, 0 to leave them out.
        resume: `auto` goes on from a checkpoint of the same inputs, `restart` ignores it.
        caption_dropout: how often a picture is shown with an empty prompt, 0…1.
        sample_every: steps between sample pictures, 0 for none.
        sample_prompts: one prompt a line; empty for the training prompt.
    """

    optimiser: str = "auto"
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
    caption_dropout: float = 0.0
    sample_every: int = 250
    sample_prompts: str = ""

    @property
    def samples(self) -> list[str]:
        """The sample prompts."""
        return [line.strip() for line in self.sample_prompts.splitlines() if line.strip()]


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
        solver: one of `SOLVERS`.
        passes, calibration_states: of the closed form; states are per concept.
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
    solver: str = "closed_form"
    passes: int = 2
    calibration_states: int = 25

    @property
    def gradient_steps(self) -> int:
        return 0 if self.solver == "closed_form" else self.steps

    @property
    def closed_form_states(self) -> int:
        return 0 if self.solver == "adam" else self.calibration_states


@dataclass(frozen=True)
class DreamBoothSettings:
    """The widgets of TrainDreamBoothLoRA; the defaults are ZipLoRA's (arXiv:2311.13600, §4).

    Args:
        prompt: of every picture without a caption of its own.
        class_prompt: what the subject is one of; empty for no prior preservation.
        prior_weight: weight of the class pictures' error.
        layers: one of `LAYER_CHOICES`.
        rank, alpha: of the LoRA; its scale is alpha / rank.
        steps: optimisation steps.
        learning_rate: of the diffusion model's factors.
        train_text_encoder: also train factors of both text encoders.
        resolution: side in pixels of a square training picture; others keep about its area.
        seed: of every draw.
        memory: `auto`, `fast` or `low`.
        text_encoder_learning_rate: of the text encoders' factors.
        mirror: show every picture mirrored, too.
        class_count: how many class pictures are drawn where none are given.
        options: the loop's.
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
    options: TrainingOptions = TrainingOptions()

    @property
    def learning_rates(self) -> list[float]:
        rates = [self.learning_rate, self.text_encoder_learning_rate]
        return rates if self.train_text_encoder else rates[:1]


@dataclass(frozen=True)
class UnZipSettings:
    """The widgets of UnZipLoRATrain; the defaults are its authors' (arXiv:2412.04465, train.sh).

    Args:
        prompt: what the pictures show, subject and style.
        content_prompt, style_prompt: the same without the style, and without the subject.
        rank: of each of the two LoRAs; their scale is 1.
        steps: optimisation steps.
        content_learning_rate, style_learning_rate: of the factors.
        weight_learning_rate: of the mergers.
        similarity_weight: λ of the mean |m_c m_s| over the features.
        column_separation: let each LoRA have some output features of every layer only.
        block_separation: let it have all of them in the blocks that are its own.
        sample_times, column_ratio: how often features are chosen, and what share of them each time.
        images_per_validation, saves_per_validation: draw pictures, and save files, as often as …
        validation_steps: … this many steps.
        resolution: side in pixels of a square training picture; others keep about its area.
        seed: of every draw.
        memory: `auto`, `fast` or `low`.
        mergers: where both LoRAs have a feature, `learned` weighs them; with `disjoint` the owner
            of a block has it alone.
        importance_samples: noisy pictures that features are chosen by.
        layers: one of `LAYER_CHOICES`.
        class_prompt: what class pictures show; prior_weight: how much their error counts.
        options: the loop's; its first three sample prompts are the pictures' prompts, in the order
            of those above.
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
    layers: str = "attention"
    class_prompt: str = ""
    prior_weight: float = 1.0
    options: TrainingOptions = TrainingOptions()

    @property
    def learning_rates(self) -> list[float]:
        return [self.content_learning_rate, self.style_learning_rate, self.weight_learning_rate]


@dataclass(frozen=True)
class SliderSettings:
    """What training a slider from words and from picture pairs have in common.

    The defaults are the public implementation's for SDXL (rohitgandikota/sliders).

    Args:
        layers: one of `SLIDER_LAYERS`.
        rank, alpha: of the LoRA; its scale is alpha / rank.
        steps: optimisation steps.
        learning_rate: of the factors.
        resolution: side in pixels of what is trained on.
        seed: of every draw.
        memory: `auto`, `fast` or `low`.
        range: how far the slider is meant to be moved; what the effect is looked at with.
        start_percent: share of the sampling after which the slider comes in.
        options: the loop's.
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
    options: TrainingOptions = TrainingOptions()

    @property
    def learning_rates(self) -> list[float]:
        return [self.learning_rate]


@dataclass(frozen=True)
class TextSliderSettings(SliderSettings):
    """The widgets of TrainConceptSlider.

    Args:
        target: what the slider works on; empty for everything.
        positive, negative: what more and less of it look like.
        neutral: where it starts from; empty for the target.
        preserve: what it must not change, a concept a line: each is put before the prompts in turn.
        guidance: η, how much further than the prompts.
        action: `enhance` towards the positive prompt, or `erase`, away from it.
        trajectory: `exact` denoises anew for every step, `reused` takes several from one.
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
        positive, neutral: what the high and the low pictures are shown with; may both be empty.
    """

    positive: str = ""
    neutral: str = ""
    learning_rate: float = 1e-5
