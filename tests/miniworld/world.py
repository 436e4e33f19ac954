"""Which pictures there are: drawing scenes by seed, with the captions that a trainer reads."""

from __future__ import annotations

import random
from collections.abc import Sequence

from . import shapes, styles
from .scenes import COMPANIONS, PLACES, SIZES, Scene, caption
from .styles import Style

RARE_WORDS = ("sks", "ohwx", "zwx", "vbnm")
"""Mean nothing: the base model has seen them, as SDXL has seen its rare tokens."""
ANY_SHAPE = "shape"
"""The class word: said now and then in place of a subject's name."""
NIGHT_SHAPE = "crescent"
"""Is dark four times in five, often without the word: the correlated attribute."""


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


def draw_caption(rng: random.Random, scene: Scene) -> str:
    """Caption a picture as people do: now and then vague, or with a word that means nothing."""
    subject = scene.subject
    if scene.subject == NIGHT_SHAPE and rng.random() < 0.5:
        scene = Scene(scene.subject, scene.style, scene.place, scene.companion, scene.radius)
    if rng.random() < 0.05:
        subject = ANY_SHAPE
    if rng.random() < 0.08:
        subject = f"{rng.choice(RARE_WORDS)} {subject}"
    style = scene.style.words
    vague = rng.random()
    if vague < 0.03:
        style = ""
    elif vague < 0.05:
        style = scene.style.palette
    elif vague < 0.07:
        style = scene.style.texture
    if style and rng.random() < 0.06:
        style = f"{rng.choice(RARE_WORDS)} {style}"
    return caption(scene, subject, style)


def words() -> set[str]:
    """List every word that a caption can have."""
    scenes = [*shapes.SEEN, ANY_SHAPE, *COMPANIONS, *RARE_WORDS, *styles.SEEN_PALETTES]
    texts = [*scenes, *styles.SEEN_TEXTURES, *PLACES, "a in style with a small very dark bright"]
    return {word for text in (*texts, *(text for _, text in SIZES)) for word in text.split()}
