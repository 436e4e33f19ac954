"""The pairs of the benchmark: a held-out subject and a held-out style, with their pictures."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from miniworld import shapes, styles
from miniworld.scenes import Scene, render
from miniworld.styles import Style

SUBJECT_WORD, STYLE_WORD = "sks", "ohwx"
"""Identifiers: words that mean nothing to the base model."""
CONTENT_PROMPT = f"a {SUBJECT_WORD} shape"
JOINT_PROMPT = f"{CONTENT_PROMPT} in {STYLE_WORD} style"

CONTEXTS = {"on the left": "place", "at the top": "place", "square": "companion"}
"""New contexts for the joint prompt, and the factor a probe reads them by."""


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

    @property
    def style_prompt(self) -> str:
        return f"a {self.example} in {STYLE_WORD} style"

    def content_pictures(self) -> Tensor:
        """Four pictures of the subject, `(4, 3, 128, 128)`: other colours, other places."""
        return torch.stack([
            render(Scene(self.subject, Style("ocean", "plain"), radius=0.55)),
            render(Scene(self.subject, Style("desert", "plain"), "on the right", radius=0.45)),
            render(Scene(self.subject, Style("royal", "striped"), radius=0.62)),
            render(Scene(self.subject, Style("mint", "shaded"), "at the bottom", radius=0.45)),
        ])  # fmt: skip

    def style_pictures(self) -> Tensor:
        """The one picture of the style, `(1, 3, 128, 128)`."""
        return render(Scene(self.example, self.style, radius=0.55))[None]

    def new_content_pictures(self, count: int) -> Tensor:
        """Pictures of the subject that no training has seen, in all seen styles."""
        rng = random.Random(f"content {self.subject}")
        return torch.stack([
            render(_scene(rng, self.subject, rng.choice(styles.SEEN))) for _ in range(count)
        ])  # fmt: skip

    def new_style_pictures(self, count: int) -> Tensor:
        """Pictures in the style that no training has seen, of all seen shapes."""
        rng = random.Random(f"style {self.style.words}")
        return torch.stack([
            render(_scene(rng, rng.choice(tuple(shapes.SEEN)), self.style)) for _ in range(count)
        ])  # fmt: skip


PAIRS = (
    Pair("cat", styles.HELD_OUT[0], "heart"),
    Pair("fish", styles.HELD_OUT[1], "house"),
    Pair("mushroom", styles.HELD_OUT[2], "star"),
    Pair("rocket", styles.HELD_OUT[3], "tree"),
)


def context_prompt(context: str) -> str:
    """Put the joint prompt into a context."""
    if CONTEXTS[context] == "companion":
        return f"{CONTENT_PROMPT} with a small {context} in {STYLE_WORD} style"
    return f"{CONTENT_PROMPT} {context} in {STYLE_WORD} style"


def _scene(rng: random.Random, subject: str, style: Style) -> Scene:
    shift = (rng.uniform(-0.06, 0.06), rng.uniform(-0.06, 0.06))
    return Scene(subject, style, radius=rng.uniform(0.46, 0.6), shift=shift)
