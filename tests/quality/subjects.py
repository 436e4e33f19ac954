"""The pairs of the benchmark: a held-out subject and a held-out style, with their pictures.

Whatever is chosen (a default, a ridge, a rate) is chosen by the tuning pairs. The test pairs have
other subjects and other styles, and decide nothing: they are drawn at the end, to report.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from miniworld import shapes, styles
from miniworld.scenes import Scene, render
from miniworld.styles import Style

SUBJECT_WORD, STYLE_WORD = "sks", "ohwx"
"""Identifiers: words that mean nothing to the base model."""
SUBJECT = f"a {SUBJECT_WORD} shape"
JOINT_PROMPT = f"{SUBJECT} in {STYLE_WORD} style"


CONTENT_SCENES = (
    (Style("ocean", "plain"), "", 0.64),
    (Style("desert", "plain"), "on the right", 0.52),
    (Style("royal", "striped"), "", 0.72),
    (Style("mint", "shaded"), "at the bottom", 0.52),
)
"""Style, place and radius of each of the subject's pictures."""
CONTENT_CAPTIONS = [
    f"{SUBJECT} {place} in {style.words} style".replace("  ", " ")
    for style, place, _ in CONTENT_SCENES
]
"""All that is in the pictures beside the subject has a word, so that it is not learned with it."""
CONTENT_PROMPT = CONTENT_CAPTIONS[0]
"""The subject's own prompt. It names a style, as *a photo of* does: the model knows no picture
without one."""


@dataclass(frozen=True)
class Pair:
    """One subject to be drawn in one style.

    Args:
        example: the seen shape in the one picture of the style.
    """

    subject: str
    style: Style
    example: str

    @property
    def name(self) -> str:
        return f"{self.subject} in {self.style.words}"

    def shares_with(self, other: Pair) -> bool:
        """Whether the two have a LoRA in common."""
        return self.subject == other.subject or self.style == other.style

    @property
    def style_prompt(self) -> str:
        return f"a {self.example} in {STYLE_WORD} style"

    def content_pictures(self) -> Tensor:
        """Four pictures of the subject, `(4, 3, 128, 128)`: other colours, other places."""
        return torch.stack([
            render(Scene(self.subject, style, place, radius=radius))
            for style, place, radius in CONTENT_SCENES
        ])  # fmt: skip

    def style_pictures(self) -> Tensor:
        """The one picture of the style, `(1, 3, 128, 128)`."""
        return render(Scene(self.example, self.style, radius=0.64))[None]

    def new_content_pictures(self, count: int, in_styles: Sequence[Style] = styles.SEEN) -> Tensor:
        """Pictures of the subject that no training has seen, in all seen styles or in some."""
        rng = random.Random(f"content {self.subject}")
        return torch.stack([
            render(_scene(rng, self.subject, rng.choice(in_styles))) for _ in range(count)
        ])  # fmt: skip

    def new_style_pictures(self, count: int) -> Tensor:
        """Pictures in the style that no training has seen, of all seen shapes."""
        rng = random.Random(f"style {self.style.words}")
        return torch.stack([
            render(_scene(rng, rng.choice(tuple(shapes.SEEN)), self.style)) for _ in range(count)
        ])  # fmt: skip


EXAMPLES = {
    "neon striped": "heart", "coral dotted": "house", "poppy checkered": "star",
    "plum ringed": "tree", "acid wavy": "cup", "rust barred": "ring",
    "lilac zigzag": "boat", "jade bricked": "star", "peach spiral": "cross",
    "cherry gridded": "drop", "sky scaled": "tree", "moss slanted": "flower",
}  # fmt: skip
"""The seen shape in the one picture of each style."""


def _pairs(*names: tuple[str, str]) -> tuple[Pair, ...]:
    known = {style.words: style for style in styles.HELD_OUT}
    return tuple(Pair(subject, known[style], EXAMPLES[style]) for subject, style in names)


TUNING = _pairs(
    ("cat", "neon striped"),
    ("fish", "coral dotted"),
    ("mushroom", "poppy checkered"),
    ("rocket", "plum ringed"),
    ("rabbit", "acid wavy"),
    ("umbrella", "rust barred"),
    ("rocket", "neon striped"),
    ("rabbit", "coral dotted"),
)
TEST = _pairs(
    ("ghost", "lilac zigzag"),
    ("butterfly", "jade bricked"),
    ("whale", "peach spiral"),
    ("truck", "cherry gridded"),
    ("crown", "sky scaled"),
    ("apple", "moss slanted"),
    ("truck", "lilac zigzag"),
    ("crown", "jade bricked"),
)
PAIRS = (*TUNING, *TEST)


def _scene(rng: random.Random, subject: str, style: Style) -> Scene:
    shift = (rng.uniform(-0.06, 0.06), rng.uniform(-0.06, 0.06))
    return Scene(subject, style, radius=rng.uniform(0.54, 0.7), shift=shift)
