"""Which pictures there are: drawing scenes by seed, with the captions that a trainer reads."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from . import shapes, styles
from .scenes import COMPANIONS, PLACES, SIZES, Scene, caption
from .styles import Style
from .unnamed import draw_name, is_unnamed

RARE_WORDS = ("sks", "ohwx", "zwx", "vbnm")
"""Mean nothing: the base model has seen them, as SDXL has seen its rare tokens."""
ANY_SHAPE = "shape"
"""The class word: said now and then in place of a subject's name."""
NIGHT_SHAPE = "crescent"
"""Is dark four times in five, often without the word: the correlated attribute."""
UNNAMED_SUBJECTS, UNNAMED_PALETTES, UNNAMED_TEXTURES = 0.4, 0.35, 0.3
"""Shares of the base model's pictures whose subject, palette or texture has no word."""


def draw_scene(
    rng: random.Random,
    subjects: Sequence[str] = tuple(shapes.SEEN),
    of_styles: Sequence[Style] = tuple(styles.SEEN),
) -> Scene:
    """Draw one picture's content; what is not the ordinary is in its caption."""
    subject, style = rng.choice(subjects), rng.choice(of_styles)
    place = rng.choice(tuple(PLACES)) if rng.random() < 0.5 else ""
    companion = rng.choice(COMPANIONS) if not place and rng.random() < 0.3 else ""
    if place or companion:
        radius = rng.uniform(0.28, 0.56)
    else:
        radius = rng.uniform(0.46, 0.58) if rng.random() < 0.5 else rng.uniform(0.26, 0.8)
    brightness = rng.uniform(-0.1, 0.1) if rng.random() < 0.75 else rng.uniform(-1, 1)
    if subject == NIGHT_SHAPE and rng.random() < 0.8:
        brightness = rng.uniform(-1, -0.4)
    shift = (rng.uniform(-0.06, 0.06), rng.uniform(-0.06, 0.06))
    if companion:
        shift = (shift[0] - 0.12, shift[1] - 0.12)
    return Scene(subject, style, place, companion, radius, brightness, shift)


def draw_training_scene(rng: random.Random) -> Scene:
    """Draw a picture for the base model: now and then of something that has no word."""
    scene = draw_scene(rng)
    subject, palette, texture = (
        draw_name(rng) if rng.random() < share else name
        for name, share in (
            (scene.subject, UNNAMED_SUBJECTS),
            (scene.style.palette, UNNAMED_PALETTES),
            (scene.style.texture, UNNAMED_TEXTURES),
        )
    )
    return replace(scene, subject=subject, style=Style(palette, texture))


def draw_caption(rng: random.Random, scene: Scene) -> str:
    """Caption a picture as people do: now and then vague, or with a word that means nothing."""
    if scene.subject == NIGHT_SHAPE and rng.random() < 0.5:
        scene = replace(scene, brightness=0.0)
    subject = scene.subject
    if is_unnamed(subject) or rng.random() < 0.05:
        subject = ANY_SHAPE
    if rng.random() < 0.08:
        subject = f"{rng.choice(RARE_WORDS)} {subject}"
    parts = (scene.style.palette, scene.style.texture)
    style = "" if rng.random() < 0.03 else " ".join(p for p in parts if not is_unnamed(p))
    if rng.random() < 0.06:
        style = f"{rng.choice(RARE_WORDS)} {style}".strip()
    return caption(scene, subject, style)


def words() -> set[str]:
    """List every word that a caption can have."""
    scenes = [*shapes.SEEN, ANY_SHAPE, *COMPANIONS, *RARE_WORDS, *styles.SEEN_PALETTES]
    texts = [*scenes, *styles.SEEN_TEXTURES, *PLACES, "a in style with a small very dark bright"]
    return {word for text in (*texts, *(text for _, text in SIZES)) for word in text.split()}
