"""The world: what it draws is what the caption says, and held-out factors stay held out."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace

import pytest
import torch

from miniworld import shapes, styles, unnamed, world
from miniworld.scenes import PLACES, Scene, caption, render, silhouette
from miniworld.styles import Style
from miniworld.unnamed import is_unnamed

PLAIN = Style("ocean", "plain")
SIDE = 64
SIZES = (0.26, 0.4, 0.52, 0.65, 0.78)
LIGHTS = (-1.0, -0.5, 0.0, 0.5, 1.0)
STRETCHES = (-1.0, -0.4, 0.0, 0.6)


def test_world_is_large_enough() -> None:
    assert len(shapes.SEEN) >= 10 and len(styles.SEEN) >= 40
    assert len(shapes.HELD_OUT) >= 3 and len(styles.HELD_OUT) >= 3


def test_held_out_factors_are_never_drawn_for_the_base_model() -> None:
    rng = random.Random(0)
    scenes = [world.draw_training_scene(rng) for _ in range(5000)]
    captions = " ".join(world.draw_caption(rng, scene) for scene in scenes).split()
    named = {s.subject for s in scenes if not is_unnamed(s.subject)}
    in_styles = {
        s.style
        for s in scenes
        if not is_unnamed(s.style.palette) and not is_unnamed(s.style.texture)
    }
    assert not set(shapes.HELD_OUT) & (named | set(captions))
    assert not {*styles.HELD_OUT_PALETTES, *styles.HELD_OUT_TEXTURES} & set(captions)
    assert named == set(shapes.SEEN)
    assert in_styles == set(styles.SEEN)


def test_same_seed_same_pictures() -> None:
    first, second = (
        [world.draw_training_scene(rng) for _ in range(40)]
        for rng in (random.Random(3), random.Random(3))
    )
    assert first == second
    assert all(
        torch.equal(render(a, 32), render(b, 32)) for a, b in zip(first, second, strict=True)
    )


def test_unnamed_concepts_differ_and_are_not_spoken_of() -> None:
    rng = random.Random(4)
    names = [unnamed.draw_name(rng) for _ in range(30)]
    masks = [silhouette(Scene(name, PLAIN, radius=0.6), 32) for name in names]
    for a, b in itertools.combinations(masks, 2):
        assert not torch.equal(a, b)
    assert sum(float(mask.mean()) > 0.04 for mask in masks) >= 28  # a hole may eat a small one
    colours = [unnamed.palette(name).colours() for name in names]
    assert all(float((c[0] - c[2]).norm()) > 0.5 for c in colours)
    held_out = [palette.colours() for palette in styles.HELD_OUT_PALETTES.values()]
    assert min(float((a - b).norm()) for a in colours for b in held_out) > 0.2
    scene = Scene(names[0], Style(names[1], names[2]))
    captions = {world.draw_caption(rng, scene) for _ in range(200)}
    assert captions >= {"a shape", "a sks shape", "a shape in ohwx style"}
    assert not any("#" in text for text in captions)


@pytest.mark.parametrize(
    ("scene", "text"),
    [
        (Scene("star", Style("ocean", "striped")), "a star in ocean striped style"),
        (
            Scene("cup", Style("ice", "plain"), "on the left", radius=0.4, brightness=-0.4),
            "a dark small cup on the left in ice plain style",
        ),
        (
            Scene("key", PLAIN, companion="square", radius=0.3, brightness=0.9),
            "a very bright tiny key with a small square in ocean plain style",
        ),
        (Scene("ring", PLAIN, radius=0.75), "a huge ring in ocean plain style"),
    ],
)
def test_caption_says_what_is_there(scene: Scene, text: str) -> None:
    assert caption(scene) == text


def test_caption_with_identifiers() -> None:
    scene = Scene("cat", styles.HELD_OUT[0])
    assert caption(scene, "sks shape", "ohwx") == "a sks shape in ohwx style"
    assert caption(scene, "sks shape", "") == "a sks shape"


def test_every_word_of_a_caption_is_in_the_vocabulary() -> None:
    rng = random.Random(1)
    scenes = [world.draw_training_scene(rng) for _ in range(3000)]
    said = {word for scene in scenes for word in world.draw_caption(rng, scene).split()}
    assert said == world.words()


def test_size_is_measurable() -> None:
    areas = [float(silhouette(Scene("heart", PLAIN, radius=r), SIDE).mean()) for r in SIZES]
    assert all(a < b for a, b in itertools.pairwise(areas))


def test_brightness_is_measurable() -> None:
    for style in styles.SEEN:
        means = [float(render(Scene("tree", style, brightness=b), 32).mean()) for b in LIGHTS]
        assert all(a < b for a, b in itertools.pairwise(means))


@pytest.mark.parametrize("stretch", STRETCHES)
def test_stretch_is_the_ratio_of_width_to_height_and_leaves_the_area(stretch: float) -> None:
    mask = silhouette(Scene("circle", PLAIN, radius=0.4, stretch=stretch), SIDE)
    width, height = (float(mask.amax(side).sum()) for side in (0, 1))
    assert math.log2(width / height) == pytest.approx(stretch, abs=0.08)
    round_one = silhouette(Scene("circle", PLAIN, radius=0.4), SIDE)
    assert float(mask.sum()) == pytest.approx(float(round_one.sum()), rel=0.02)


def test_subject_stands_at_its_place() -> None:
    line = (torch.arange(SIDE) + 0.5) * 2 / SIDE - 1
    for place, (x, y) in PLACES.items():
        mask = silhouette(Scene("circle", PLAIN, place, radius=0.3), SIDE)
        weights = mask / mask.sum()
        assert float((weights.sum(0) * line).sum()) == pytest.approx(x, abs=0.02)
        assert float((weights.sum(1) * line).sum()) == pytest.approx(y, abs=0.02)


def test_companion_changes_only_its_corner() -> None:
    alone = Scene("star", PLAIN, radius=0.4)
    difference = (render(alone) - render(replace(alone, companion="square"))).abs().amax(0)
    assert difference[100:, 100:].max() > 0.3
    assert difference[:80].max() == 0 and difference[:, :80].max() == 0


def test_night_shape_is_mostly_dark_and_the_others_are_not() -> None:
    rng = random.Random(2)
    scenes = [world.draw_scene(rng) for _ in range(4000)]
    night = [s.brightness < -0.2 for s in scenes if s.subject == world.NIGHT_SHAPE]
    others = [s.brightness < -0.2 for s in scenes if s.subject != world.NIGHT_SHAPE]
    assert sum(night) / len(night) > 0.75
    assert sum(others) / len(others) < 0.25


def test_silhouettes_differ() -> None:
    masks = {name: silhouette(Scene(name, PLAIN), SIDE) for name in shapes.SHAPES}
    for (_, a), (_, b) in itertools.combinations(masks.items(), 2):
        assert float(torch.minimum(a, b).sum() / torch.maximum(a, b).sum()) < 0.9


def test_styles_differ() -> None:
    pictures = [render(Scene("circle", style), 32) for style in (*styles.SEEN, *styles.HELD_OUT)]
    for a, b in itertools.combinations(pictures, 2):
        assert float((a - b).abs().mean()) > 0.01
