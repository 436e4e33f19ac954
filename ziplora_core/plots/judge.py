"""How much of each LoRA of a pair is in a picture, asked of the LoRAs themselves.

It is a diffusion classifier (Li et al. 2023, arXiv:2303.16203) for amounts instead of classes: that
one compares the models' errors, this one fits the noise with the models' differences.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import variance

import torch
from torch import Tensor

from ..errors import ZipLoRAError, problem

_NOTHING = 1e-10
"""Largest squared change of the prediction, relative to the prediction, that counts as none."""
_PARALLEL = 1e-3
"""Smallest 1 − cos² of the two LoRAs' changes; bfloat16 leaves some between equal LoRAs."""
LIMITS = (
    "a gauge of strengths within one kind of merge, never of quality: it says how much a picture "
    "looks like what each LoRA draws at this prompt, colours and place included; a broken picture "
    "can score high, and seeds or kinds of merge cannot be compared"
)


@dataclass(frozen=True)
class Amounts:
    """The fitted amounts a (content) and b (style) of one picture, in the predictions' own scale"""

    content: float
    style: float


@dataclass(frozen=True)
class Judged:
    """The scores of one picture: 0 as the base model draws it, 1 as that LoRA alone draws it."""

    subject: float
    style: float

    @property
    def smaller(self) -> float:
        return min(self.subject, self.style)


def fit_amounts(noise: Tensor, base: Tensor, content: Tensor, style: Tensor) -> Amounts:
    """Fit noise − base ≈ a · (content − base) + b · (style − base) by least squares.

    The sum is over all elements; the 2 × 2 normal equations are solved in float64.

    Args:
        noise: the noise that was added to the picture, `(draw, c, h, w)`, of unit variance.
        base: the noise that the base model predicts, of the same shape.
        content, style: the noise that the model with that LoRA alone predicts.

    Raises:
        ZipLoRAError: a prediction is not finite, a LoRA does not change the prediction, or both
            change it in the same direction.
    """
    noise, base, content, style = (t.double().flatten() for t in (noise, base, content, style))
    missing, of_content, of_style = noise - base, content - base, style - base
    if not all(bool(torch.isfinite(t).all()) for t in (missing, of_content, of_style)):
        raise problem(
            "model",
            found="predictions with NaN or infinity",
            expected="finite predictions of the base model and of each LoRA",
            advice="Load the checkpoint in another precision, or check the LoRA files.",
        )
    cc, ss, cs = (float(a @ b) for a, b in (
        (of_content, of_content), (of_style, of_style), (of_content, of_style),
    ))  # fmt: skip
    for square, name in ((cc, "content"), (ss, "style")):
        if square <= _NOTHING * float(base @ base):
            raise does_nothing(f"a {name} LoRA whose predictions are those of the base model")
    determinant = cc * ss - cs**2
    if determinant <= _PARALLEL * cc * ss:
        raise alike("two LoRAs that change the prediction in the same direction")
    cr, sr = float(of_content @ missing), float(of_style @ missing)
    return Amounts((ss * cr - cs * sr) / determinant, (cc * sr - cs * cr) / determinant)


def does_nothing(found: str) -> ZipLoRAError:
    """Make the error for a LoRA that does not change the model."""
    return problem(
        "pair",
        found=found,
        expected="two LoRAs that each change the checkpoint's predictions",
        advice="Pick another file in Load LoRA Pair: this one is empty, or made for another model.",
    )


def alike(found: str) -> ZipLoRAError:
    """Make the error for two LoRAs that cannot be told apart."""
    return problem(
        "pair",
        found=found,
        expected="a content LoRA and a style LoRA that differ: equal ones cannot be told apart",
        advice="Pick two different files in Load LoRA Pair.",
    )


@dataclass(frozen=True)
class Scale:
    """A linear scale with the calibration's means at 0 and 1.

    Args:
        base: amounts of this LoRA in pictures without it.
        own: amounts of this LoRA in its own pictures.
        others: whose pictures those without it are.
    """

    base: Sequence[float]
    own: Sequence[float]
    others: str = "base model's"

    @property
    def zero(self) -> float:
        return mean(self.base)

    @property
    def one(self) -> float:
        return mean(self.own)

    def score(self, amount: float) -> float:
        """Compute (amount − zero) / (one − zero)."""
        return (amount - self.zero) / (self.one - self.zero)

    @property
    def overlaps(self) -> bool:
        """Whether both ends are less than two standard deviations of single pictures apart.

        One picture has none: it never overlaps.
        """
        if len(self.base) < 2:
            return False
        spread = (variance(self.base) + variance(self.own)) / 2
        return self.one - self.zero < 2 * spread**0.5

    def describe(self) -> str:
        """Describe both ends, and the scores of the single calibration pictures."""
        ends = f"{self.others} pictures {self.zero:.4f} (score 0), its own {self.one:.4f} (score 1)"
        spans = []
        for name, amounts in (("without it", self.base), ("own", self.own)):
            scores = [self.score(amount) for amount in amounts]
            spans.append(f"{name} {min(scores):.2f} … {max(scores):.2f}")
        return f"{ends}; single pictures: {', '.join(spans)}"


@dataclass(frozen=True)
class Gauge:
    """The scales of content and style, from pictures of the base model and of each LoRA alone."""

    content: Scale
    style: Scale

    def judge(self, amounts: Amounts) -> Judged:
        """Compute a picture's scores."""
        return Judged(self.content.score(amounts.content), self.style.score(amounts.style))

    def warnings(self, advice: str = "raise draws") -> list[str]:
        """Name the LoRAs whose scores are as uncertain as they are large; say what to do."""
        return [
            f"WARNING: the {name} LoRA's own pictures and the {scale.others} overlap on this "
            f"scale, so a single picture's score says little: {advice}, and see that its trigger "
            "word is in the prompt"
            for name, scale in (("content", self.content), ("style", self.style))
            if scale.overlaps
        ]


def calibrate_gauge(
    base: Sequence[Amounts],
    content: Sequence[Amounts],
    style: Sequence[Amounts],
    advice: str = "raise calibration_pictures or draws",
) -> Gauge:
    """Make the scales on which the base's pictures score 0, and each LoRA's own score 1, on average

    Args:
        base: amounts of the pictures that the base model drew.
        content, style: amounts of the pictures that the model drew with that LoRA alone.
        advice: what else to try if that fails.

    Raises:
        ZipLoRAError: a LoRA's own pictures have no more of it than those of the base model.
    """
    content_scale = Scale([p.content for p in base], [p.content for p in content])
    style_scale = Scale([p.style for p in base], [p.style for p in style])
    for name, scale in (("content", content_scale), ("style", style_scale)):
        if not scale.one > scale.zero:
            raise problem(
                "positive",
                found=f"a prompt at which the {name} LoRA's own pictures score no more than the "
                f"base model's ({scale.one:.4f} and {scale.zero:.4f})",
                expected="a prompt at which each LoRA alone draws what it has learned",
                advice=f"Is the trigger word of the {name} LoRA in the prompt? Write it there, or "
                f"{advice}.",
            )
    return Gauge(content_scale, style_scale)


Column = Callable[[Judged], float]
_COLUMNS: Mapping[str, Column] = {
    "subject": lambda judged: judged.subject,
    "style": lambda judged: judged.style,
    "smaller": lambda judged: judged.smaller,
}


def judged_rows(
    pictures: Sequence[Judged], beside: Mapping[str, Sequence[float]], digits: int = 3
) -> list[tuple[str, ...]]:
    """Arrange a heading, a row for each picture and the means as cells.

    Args:
        pictures: the scores of the pictures, in order.
        beside: other scores of the same pictures, by the heading of their column.
        digits: number of decimals.
    """
    columns = {name: [of(p) for p in pictures] for name, of in _COLUMNS.items()} | dict(beside)
    names = [str(n) for n in range(1, len(pictures) + 1)]
    lines = [
        (name, *(f"{value:.{digits}f}" for value in values))
        for name, values in zip(names, zip(*columns.values(), strict=True), strict=True)
    ]
    means = (f"{mean(values):.{digits}f}" for values in columns.values())
    return [("picture", *columns), *lines, ("mean", *means)]


def mean(values: Sequence[float]) -> float:
    """Compute the mean."""
    return sum(values) / len(values)
