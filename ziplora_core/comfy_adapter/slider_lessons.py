"""What a slider can learn from: words, or before/after pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol, TypeVar

from torch import Tensor

from ..errors import problem
from ..framing import Framing
from ..lora import LoRA
from ..lora_objective import LoRAObjective
from ..lora_parameters import LearnedLoRA
from ..options import PairSliderSettings, SliderSettings, TextSliderSettings
from ..resume_key import Inputs, picture_digest
from ..slider import Concept, TextSliderObjective, concepts
from ..slider_pairs import PairSliderObjective, PicturePair
from .captions import Conditioner
from .loaded_inputs import of_vae
from .pictures import encode_pictures, split_pictures
from .training_model import TrainingModel


@dataclass(frozen=True)
class SliderStudio:
    """What a slider's training takes from the canvas beside its lesson.

    Args:
        model, clip: of the checkpoint; neither is changed.
        vae: to see the effect by, None for rough colours; pictures need one to be learned.
        start: a slider to go on from; None to begin at the model itself.
    """

    model: Any
    clip: Any
    vae: Any | None = None
    start: LoRA | None = None


class Lesson(Protocol):
    """What the session needs to know of either way."""

    @property
    def settings(self) -> SliderSettings:
        """The node's, prompts without outer whitespace."""
        ...

    @property
    def texts(self) -> list[str]:
        """All prompts; the first one is drawn to look at the effect."""
        ...

    @property
    def lines(self) -> list[str]:
        """What the report says of it."""
        ...

    @property
    def described(self) -> dict[str, Any]:
        """What the file says of it."""
        ...

    def inputs(self, studio: SliderStudio) -> Inputs:
        """Name what the result depends on beside settings, MODEL and CLIP."""
        ...

    def prepare(self, studio: SliderStudio) -> None:
        """Do what is done before the model is loaded."""
        ...

    def objective(
        self, opened: TrainingModel, lora: LearnedLoRA, conditioner: Conditioner
    ) -> LoRAObjective[Any, Any]: ...


_PROMPTS = ("target", "positive", "negative", "neutral", "preserve")


class TextLesson:
    """Prompts: more of the positive and less of the negative one, at the target.

    Raises:
        ZipLoRAError: neither a positive nor a negative prompt, or two that are the same.
    """

    def __init__(self, settings: TextSliderSettings) -> None:
        self.settings = _stripped(settings, *_PROMPTS)
        self.concepts = concepts(self.settings)
        first = self.concepts[0]
        empty = not self.settings.positive and not self.settings.negative
        if empty or first.positive == first.negative:
            raise problem(
                "positive and negative",
                found="nothing" if empty else f"the same: {first.positive!r}",
                expected="two ends to move between, e.g. 'very old' and 'very young'",
                advice="Write what more and less of it look like.",
            )

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

    def inputs(self, studio: SliderStudio) -> Inputs:
        """Prompts are settings; a VAE only shows the effect."""
        return Inputs({})

    def prepare(self, studio: SliderStudio) -> None:
        """Prompts need nothing more."""

    def objective(
        self, opened: TrainingModel, lora: LearnedLoRA, conditioner: Conditioner
    ) -> TextSliderObjective:
        frame = Framing.drawn(self.settings.resolution, self.settings.resolution)
        prepared = [
            Concept(*conditioner([(text, frame) for text in asdict(c).values()]))
            for c in self.concepts
        ]
        channels = opened.model.latent_format.latent_channels
        height, width = (side // 8 for side in frame.target)
        size = (channels, height, width)
        return TextSliderObjective(opened, lora, prepared, size, self.settings)


@dataclass(frozen=True)
class PicturePairs:
    """Before/after pictures as they come from the canvas, `scale` from the middle each."""

    low: Sequence[Tensor]
    high: Sequence[Tensor]
    scale: float


def paired_pictures(low: Sequence[Tensor], high: Sequence[Tensor], scale: float) -> PicturePairs:
    """Take two batches (or lists of them) apart, and check that they are pairs.

    Raises:
        ZipLoRAError: other counts, other sizes, no pictures, or a scale that is not above 0.
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
            advice="Connect as many of each; crop or resize the two of a pair alike.",
        )
    if not scale > 0:
        raise problem(
            "scale",
            found=f"{scale:g}",
            expected="how far from the middle the pictures are, above 0",
            advice="Use 1; for a second, stronger level connect another node with 2.",
        )
    return PicturePairs(*pairs, scale)


@dataclass
class PairLesson:
    """Pictures with less and with more of an attribute, at one or more distances."""

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
        return [f"slider of {sum(len(v.low) for v in self.levels)} picture pairs: {levels}"]

    @property
    def described(self) -> dict[str, Any]:
        levels = [{"scale": level.scale, "pairs": len(level.low)} for level in self.levels]
        said = {"positive": self.settings.positive, "neutral": self.settings.neutral}
        return {**said, "levels": levels}

    def inputs(self, studio: SliderStudio) -> Inputs:
        """Name the pictures, and the VAE that has encoded them."""
        pairs = [
            [level.scale, *([picture_digest(picture) for picture in half] for half in halves)]
            for level in self.levels
            for halves in [(level.low, level.high)]
        ]
        return of_vae(studio.vae) | Inputs({"pairs": pairs})

    def prepare(self, studio: SliderStudio) -> None:
        """Encode the pictures once."""
        self.pairs = []
        for level in self.levels:
            views = [
                [
                    example.views[0]
                    for example in encode_pictures(
                        studio.vae, studio.model.model, pictures, [""] * len(pictures),
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
    """Take the outer whitespace off prompts, so that one prompt is one text everywhere."""
    return replace(settings, **{name: getattr(settings, name).strip() for name in prompts})
