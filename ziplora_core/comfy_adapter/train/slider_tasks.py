"""The two tasks of a slider: training from prompts, and from pairs of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol, TypeVar

from torch import Tensor

from ...errors import problem
from ...lora.factors import LoRA
from ...sliders.options import PairSliderSettings, SliderSettings, TextSliderSettings
from ...sliders.picture_objective import PairSliderObjective, PicturePair
from ...sliders.text_objective import Concept, TextSliderObjective, concepts
from ...training.framing import Framing
from ...training.lora_objective import LoRAObjective
from ...training.lora_parameters import LearnedLoRA
from ...training.resume_key import Inputs, picture_digest
from ..data.caption_encoding import Conditioner
from ..data.pictures import encode_pictures, split_pictures
from ..model.identity import identify_vae
from ..model.training_model import TrainingModel


@dataclass(frozen=True)
class SliderInputs:
    """The inputs of a slider's training, other than its task.

    Args:
        model, clip: the checkpoint's MODEL and CLIP, which are not changed.
        vae: VAE that decodes the pictures of the effect, None for approximate colours; training
            from pictures needs one.
        start: LoRA to start from, None for a new one.
    """

    model: Any
    clip: Any
    vae: Any | None = None
    start: LoRA | None = None


class SliderTask(Protocol):
    """The interface of both tasks to the session."""

    @property
    def settings(self) -> SliderSettings:
        """The node's settings, prompts without outer whitespace."""
        ...

    @property
    def texts(self) -> list[str]:
        """All prompts; the effect is shown on the first one by default."""
        ...

    @property
    def lines(self) -> list[str]:
        """The report's lines on the task."""
        ...

    @property
    def described(self) -> dict[str, Any]:
        """The file's metadata on the task, as JSON values."""
        ...

    def inputs(self, inputs: SliderInputs) -> Inputs:
        """Return the inputs that the result depends on beside settings, MODEL and CLIP."""
        ...

    def prepare(self, inputs: SliderInputs) -> None:
        """Prepare the task before the model is loaded."""
        ...

    def objective(
        self, opened: TrainingModel, lora: LearnedLoRA, conditioner: Conditioner
    ) -> LoRAObjective[Any, Any]:
        """Return the objective on the opened model."""
        ...


_PROMPTS = ("target", "positive", "negative", "neutral", "preserve")


def refuse_equal_prompts(target: str, positive: str, negative: str) -> None:
    """Refuse prompts between which there is no difference; an empty positive one is the target.

    Raises:
        ZipLoRAError: the positive and negative prompts are both empty, or the same.
    """
    target, positive, negative = target.strip(), positive.strip(), negative.strip()
    empty = not positive and not negative
    if empty or (positive or target) == negative:
        raise problem(
            "positive and negative",
            found="nothing" if empty else f"the same: {negative!r}",
            expected="two opposite prompts, e.g. 'very old' and 'very young'",
            advice="Describe more of the attribute in positive, and less of it in negative.",
        )


class TextSliderTask:
    """Training from prompts: towards the positive and away from the negative one, at the target.

    Raises:
        ZipLoRAError: the positive and negative prompts are both empty, or the same.
    """

    def __init__(self, settings: TextSliderSettings) -> None:
        self.settings = _stripped(settings, *_PROMPTS)
        self.concepts = concepts(self.settings)
        s = self.settings
        refuse_equal_prompts(s.target, s.positive, s.negative)

    @property
    def texts(self) -> list[str]:
        return list(dict.fromkeys(text for c in self.concepts for text in asdict(c).values()))

    @property
    def lines(self) -> list[str]:
        s = self.settings
        (c,) = concepts(replace(s, preserve=""))
        preserved = f", {len(self.concepts)} preserved concepts" if s.preserve else ""
        return [
            f"slider of {c.target or 'everything'!r}: {s.action} from {c.negative!r} to "
            f"{c.positive!r}, guidance {s.guidance:g}{preserved}"
        ]

    @property
    def described(self) -> dict[str, Any]:
        return {n: getattr(self.settings, n) for n in (*_PROMPTS, "guidance", "action")}

    def inputs(self, inputs: SliderInputs) -> Inputs:
        """Return no inputs: prompts are settings, and a VAE only shows the effect."""
        return Inputs({})

    def prepare(self, inputs: SliderInputs) -> None:
        """Do nothing, as the session encodes all prompts."""

    def objective(
        self, opened: TrainingModel, lora: LearnedLoRA, conditioner: Conditioner
    ) -> TextSliderObjective:
        frame = Framing.drawn(self.settings.resolution, self.settings.resolution)
        prepared = [
            Concept(*conditioner([(text, frame) for text in asdict(c).values()]))
            for c in self.concepts
        ]
        size = opened.latent_shape(*frame.target)
        return TextSliderObjective(opened, lora, prepared, size, self.settings)


@dataclass(frozen=True)
class PicturePairs:
    """Single pictures `(h, w, 3)` in 0…1 with less and with more, at −`scale` and +`scale`."""

    low: Sequence[Tensor]
    high: Sequence[Tensor]
    scale: float


def paired_pictures(low: Sequence[Tensor], high: Sequence[Tensor], scale: float) -> PicturePairs:
    """Split two batches (or lists of them) into pairs of pictures.

    Raises:
        ZipLoRAError: the numbers or the sizes differ, there are no pictures, or the scale is not
            above 0.
    """
    pairs = split_pictures(low, "low_images"), split_pictures(high, "high_images")
    found = None
    if len(pairs[0]) != len(pairs[1]):
        found = f"{len(pairs[0])} low and {len(pairs[1])} high pictures"
    for n, (a, b) in enumerate(zip(*pairs, strict=False), start=1):
        if found is None and a.shape != b.shape:
            sizes = " and ".join(f"{p.shape[1]} × {p.shape[0]}" for p in (a, b))
            found = f"pair {n} of {sizes} pixels"
    if found:
        raise problem(
            "low_images and high_images",
            found=found,
            expected="the same pictures in the same order and size, before and after",
            advice="Connect equal numbers; crop or resize both pictures of a pair alike.",
        )
    if not scale > 0:
        raise problem(
            "scale",
            found=f"{scale:g}",
            expected="the distance of the pictures from the middle, above 0",
            advice="Use 1; for a second, stronger level connect another node with 2.",
        )
    return PicturePairs(*pairs, scale)


@dataclass
class PictureSliderTask:
    """Training from pictures with less and with more of an attribute, at one or more scales."""

    levels: Sequence[PicturePairs]
    settings: PairSliderSettings
    pairs: list[PicturePair] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.settings = _stripped(self.settings, "positive", "neutral")

    @property
    def texts(self) -> list[str]:
        return list(dict.fromkeys([self.settings.positive, self.settings.neutral]))

    @property
    def lines(self) -> list[str]:
        levels = ", ".join(f"{len(level.low)} at ±{level.scale:g}" for level in self.levels)
        return [f"slider from {sum(len(v.low) for v in self.levels)} picture pairs: {levels}"]

    @property
    def described(self) -> dict[str, Any]:
        levels = [{"scale": level.scale, "pairs": len(level.low)} for level in self.levels]
        said = {"positive": self.settings.positive, "neutral": self.settings.neutral}
        return {**said, "levels": levels}

    def inputs(self, inputs: SliderInputs) -> Inputs:
        """Return the pictures, and the VAE that encodes them."""
        pairs = [
            [level.scale, *([picture_digest(picture) for picture in half] for half in halves)]
            for level in self.levels
            for halves in [(level.low, level.high)]
        ]
        return identify_vae(inputs.vae) | Inputs({"pairs": pairs})

    def prepare(self, inputs: SliderInputs) -> None:
        """Encode the pictures once."""
        self.pairs = []
        for level in self.levels:
            views = [
                [
                    example.views[0]
                    for example in encode_pictures(
                        inputs.vae, inputs.model.model, pictures, [""] * len(pictures),
                        self.settings.resolution, mirror=False,
                    )
                ]
                for pictures in (level.low, level.high)
            ]  # fmt: skip
            self.pairs += [PicturePair(a, b, level.scale) for a, b in zip(*views, strict=True)]

    def objective(
        self, opened: TrainingModel, lora: LearnedLoRA, conditioner: Conditioner
    ) -> PairSliderObjective:
        return PairSliderObjective(opened, lora, self.pairs, conditioner, self.settings)


_Settings = TypeVar("_Settings", TextSliderSettings, PairSliderSettings)


def _stripped(settings: _Settings, *prompts: str) -> _Settings:
    """Strip the outer whitespace of prompts, so that equal prompts are equal texts."""
    return replace(settings, **{name: getattr(settings, name).strip() for name in prompts})
