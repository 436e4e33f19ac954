"""Draw the workflows' thumbnails, which ComfyUI's template browser shows: `make thumbnails`.

The thumbnails are diagrams of inputs and results, in the shapes and styles of the miniature world;
no model has drawn them. A card is square, like the browser's, and readable at half its size.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from miniworld.scenes import Scene
from miniworld.styles import Style

from .card import INK, LIGHT, SIDE, Card
from .paths import ROOT

PLAIN = Style("ocean", "plain")
NEON, DOTTED = Style("neon", "striped"), Style("coral", "dotted")
SUBJECT = (
    Scene("cat", PLAIN, radius=0.55),
    Scene("cat", Style("desert", "plain"), "on the right", radius=0.45),
    Scene("cat", Style("royal", "striped"), radius=0.62),
    Scene("cat", Style("mint", "shaded"), "at the bottom", radius=0.45),
)
STYLE = Scene("heart", NEON, radius=0.55)
BOTH = Scene("cat", NEON, radius=0.6)
Draw = Callable[[Card], None]
CARDS: dict[str, tuple[tuple[str, ...], Draw]] = {}
"""Title and drawing function of each card, by the workflow's name."""


def card_of(workflow: str, *title: str) -> Callable[[Draw], Draw]:
    """Register a function that draws on the card of a workflow in `CARDS`."""

    def register(draw: Draw) -> Draw:
        CARDS[workflow] = title, draw
        return draw

    return register


def star(size: float, brightness: float = 0.0) -> Scene:
    """Make a star, as moved by the sliders on the cards; both values are in −1 … 1."""
    return Scene("star", PLAIN, radius=0.5 + 0.22 * size, brightness=0.8 * brightness)


def subject_pictures(card: Card, x: float, y: float, side: int) -> None:
    """Draw the four training pictures in a square."""
    half = (side - 8) // 2
    for number, scene in enumerate(SUBJECT):
        card.tile(scene, x + number % 2 * (half + 8), y + number // 2 * (half + 8), half)


def meet(card: Card, x: float, ends: tuple[float, float], across: float, down: float) -> None:
    """Draw an arrow down and one up that approach each other, or diverge (`down` < 0)."""
    for y, way in zip(ends, (down, -down), strict=True):
        card.arrow(x, y, across, way)


def trained(card: Card, name: str, kind: str) -> None:
    """Draw an arrow from the training pictures on the left to the file trained on them."""
    card.arrow(270, 273, 55, 0)
    card.file(348, 200, 146, name, kind)


def equation(card: Card, first: str, sign: str, second: str, result: str) -> None:
    """Draw two files, the sign between them, and the file that they make."""
    for x, name in ((30, first), (190, second), (360, result)):
        card.file(x, 200, 120, name)
    card.text(sign, 170, 260, 48, LIGHT)
    card.text("=", 334, 260, 48, LIGHT)


def row(card: Card, y: float, side: int, *scenes: Scene) -> None:
    """Draw scenes side by side in the middle."""
    gap = 20
    left = (SIDE - len(scenes) * side - (len(scenes) - 1) * gap) / 2
    for number, scene in enumerate(scenes):
        card.tile(scene, left + number * (side + gap), y, side)


@card_of("01 Subject in style", "Start here", "everything in one node")
def subject_in_style(card: Card) -> None:
    card.file(40, 120, 120, "subject", "LoRA")
    card.file(40, 310, 120, "style", "LoRA")
    meet(card, 170, (190, 380), 52, 40)
    card.tile(BOTH, 250, 165, 230, "prompts in, image out")


@card_of("24 Z-Image merge", "Learn a merge", "for Z-Image")
@card_of("25 Qwen-Image merge", "Learn a merge", "for Qwen-Image")
@card_of("26 FLUX.1 merge", "Learn a merge", "for FLUX.1")
@card_of("02 ZipLoRA merge", "Learn a merge", "step by step")
def ziplora_merge(card: Card) -> None:
    card.file(40, 120, 120, "subject", "LoRA")
    card.file(40, 310, 120, "style", "LoRA")
    meet(card, 170, (190, 380), 52, 40)
    card.tile(BOTH, 250, 165, 230, "one learned merge")


@card_of("03 Apply a saved merge", "Draw with", "a saved merge")
def apply_saved_merge(card: Card) -> None:
    card.file(30, 210, 130, "merge", "LoRA")
    card.arrow(175, 275, 45, 0)
    card.tile(BOTH, 250, 160, 230, "style at 0.7")


@card_of("08 Merge without training", "Merge", "without training")
def merge_without_training(card: Card) -> None:
    card.file(30, 150, 120, "subject")
    card.text("+", 180, 210, 44, LIGHT)
    card.file(210, 150, 120, "style")
    card.text("=", 358, 210, 44, LIGHT)
    card.file(385, 150, 110, "sum")
    for number, name in enumerate(("direct", "ties", "null_space", "svd", "knots", "tsv")):
        card.text(name, 110 + 146 * (number % 3), 350 + 46 * (number // 3), 22)
    card.text("… eleven ways", 256, 450, 22)


@card_of("06 Train a subject LoRA", "Train a LoRA", "of your subject")
def dreambooth_subject(card: Card) -> None:
    subject_pictures(card, 36, 165, 216)
    card.text("four pictures", 144, 412)
    trained(card, "sks dog", "subject LoRA")


@card_of("07 Train a style LoRA", "Train a LoRA of a style", "from one picture")
def style_from_one_image(card: Card) -> None:
    card.tile(STYLE, 36, 165, 216, "one picture")
    trained(card, "in … style", "style LoRA")


@card_of("05 Subject in style from images", "From pictures to", "my subject in my style")
def subject_in_style_from_scratch(card: Card) -> None:
    subject_pictures(card, 36, 125, 160)
    card.tile(STYLE, 36, 322, 160)
    meet(card, 212, (205, 402), 40, 40)
    card.tile(BOTH, 280, 195, 205, "train, train, merge")


@card_of("13 Train a slider from words", "Train a slider", "from words")
def concept_slider_train_text(card: Card) -> None:
    card.text("“tiny shape”", 118, 150, 24, LIGHT)
    card.text("“huge shape”", 394, 150, 24, LIGHT)
    row(card, 190, 140, star(-1), star(0), star(1))
    card.track(400, 1)


@card_of("14 Train a slider from images", "Train a slider", "from pictures")
def concept_slider_train_images(card: Card) -> None:
    for number, name in enumerate(("star", "house")):
        y = 140 + 150 * number
        small, large = (Scene(name, PLAIN, radius=radius) for radius in (0.34, 0.68))
        card.tile(small, 110, y, 130)
        card.tile(large, 272, y, 130)
    card.text("before", 175, 448)
    card.text("after", 337, 448)


@card_of("15 Use a slider", "Draw with a slider")
def concept_slider_apply(card: Card) -> None:
    row(card, 110, 210, star(0), star(0.9))
    card.arrow(238, 345, 36, 0)
    card.track(420, 1.5)


@card_of("16 Stack sliders", "Two sliders at once")
def concept_slider_stack(card: Card) -> None:
    for line, size in enumerate((-1.0, 0.0, 1.0)):
        for column, light in enumerate((-1.0, 0.0, 1.0)):
            card.tile(star(size, light), 118 + column * 116, 90 + line * 116, 108)
    card.text("brightness →", 288, 462)
    card.text("size ↓", 62, 258)


@card_of("17 Split an image", "One picture", "into two LoRAs")
def unziplora_train(card: Card) -> None:
    card.tile(BOTH, 32, 165, 220, "one picture")
    meet(card, 266, (240, 310), 48, -40)
    card.file(350, 118, 125, "subject", "LoRA")
    card.file(350, 310, 125, "style", "LoRA")


@card_of("18 Recombine two images", "The subject of A", "in the style of B")
def unziplora_recombine(card: Card) -> None:
    card.tile(BOTH, 36, 118, 150, "A")
    card.tile(Scene("house", DOTTED, radius=0.58), 36, 306, 150, "B")
    meet(card, 212, (215, 388), 40, 40)
    card.tile(Scene("cat", DOTTED, radius=0.6), 280, 195, 205)


@card_of("19 Variations of a split image", "New pictures from one")
def unziplora_variations(card: Card) -> None:
    card.tile(BOTH, 24, 195, 150)
    card.arrow(188, 270, 34, 0)
    scenes = {
        "both, new scene": Scene("cat", NEON, "on the left", "square", radius=0.46),
        "subject, alone": Scene("cat", Style("desert", "plain"), radius=0.58),
        "style, alone": Scene("star", NEON, radius=0.56),
    }
    for number, (words, scene) in enumerate(scenes.items()):
        card.tile(scene, 250, 84 + 136 * number, 116)
        for line, word in enumerate(words.split(", ")):
            card.text(word, 438, 130 + 136 * number + 28 * line, 20)


@card_of("10 Look at a merge", "What did", "the merge do?")
def look_at_a_merge(card: Card) -> None:
    styles = (PLAIN, Style(NEON.palette, "plain"), NEON)
    for line, style in enumerate(styles):
        for column, (name, radius) in enumerate((("circle", 0.4), ("cat", 0.46), ("cat", 0.6))):
            scene = Scene(name, style, radius=radius)
            card.tile(scene, 32 + column * 82, 150 + line * 82, 76)
    card.text("subject →", 152, 420)
    card.text("style ↓", 152, 450)
    before, after = (0.45, 0.8, 0.6, 0.94, 0.7, 0.82), (0.15, 0.34, 0.2, 0.4, 0.24, 0.3)
    card.lines(312, 152, 168, 104, before, after)
    card.hill(312, 286, 168, 104)
    card.text("its layers,", 396, 420)
    card.text("as figures", 396, 450)


@card_of("22 Prune a LoRA", "How much of a LoRA", "counts?")
def prune_lora(card: Card) -> None:
    card.hill(106, 118, 300, 120, cut=0.3)
    card.text("the smallest 80 % are zeroed", 256, 264)
    row(card, 296, 150, *(SUBJECT[0], SUBJECT[0]))
    card.text("whole", 171, 468)
    card.text("pruned", 341, 468)


@card_of("12 Alignment scores", "How near is it,", "in numbers?")
def alignment_scores(card: Card) -> None:
    card.tile(BOTH, 28, 190, 170, "a picture")
    for number, (words, score) in enumerate(
        (("style", "0.70"), ("subject", "0.42"), ("prompt", "0.30"))
    ):
        y = 116 + 126 * number
        card.arrow(212, 275, 50, (number - 1) * 62)
        if words == "prompt":
            card.text("“a cat …”", 334, y + 55, 22, LIGHT)
        else:
            card.tile(STYLE if words == "style" else SUBJECT[0], 284, y, 108)
        card.text(words, 448, y + 38)
        card.text(score, 448, y + 70, 27, INK)


@card_of("11 Judge images", "Enough subject,", "enough style?")
def judge_pictures(card: Card) -> None:
    styles = (PLAIN, Style(NEON.palette, "plain"), NEON)
    for number, (style, scores) in enumerate(
        zip(styles, (("0.9", "0.2"), ("0.7", "0.6"), ("0.4", "0.9")), strict=True)
    ):
        y = 104 + 122 * number
        card.tile(Scene("cat", style, radius=0.6), 70, y, 112)
        for column, score in enumerate(scores):
            card.text(score, 270 + 130 * column, y + 58, 34, INK)
    card.text("subject", 270, 478)
    card.text("style", 400, 478)


@card_of("04 Find the merge", "Which strengths", "for both?")
def find_the_merge(card: Card) -> None:
    styles = (PLAIN, Style(NEON.palette, "plain"), NEON)
    scores = (("1 / 0.4", "0.2"), ("0.8 / 0.8", "0.6"), ("1 / 1", "0.3"), ("0.9 / 0.7", "0.8"))
    scenes = (
        Scene("cat", styles[0], radius=0.6),
        Scene("cat", styles[1], radius=0.6),
        Scene("circle", styles[2], radius=0.55),
        BOTH,
    )
    for number, (scene, (pair, score)) in enumerate(zip(scenes, scores, strict=True)):
        x, y = 92 + number % 2 * 178, 108 + number // 2 * 196
        if scene is BOTH:
            card.frame(x, y, 150)
        card.tile(scene, x, y, 150, f"{pair}:  {score}")


@card_of("09 Compare merges", "Three merges", "from the same noise")
def compare_merges(card: Card) -> None:
    blends = (BOTH, Scene("cat", NEON, radius=0.6, brightness=-0.25), SUBJECT[0])
    for number, (scene, name) in enumerate(
        zip(blends, ("direct", "svd", "factor_average"), strict=True)
    ):
        card.tile(scene, 26 + number * 158, 190, 144, name)


@card_of("20 LoRA tools", "Import, resize, save", "and export a LoRA")
def lora_tools(card: Card) -> None:
    card.file(40, 215, 120, "any", "import")
    card.arrow(176, 275, 42, 0)
    card.file(232, 230, 92, "rank 32", "resize")
    meet(card, 338, (250, 300), 36, -30)
    card.file(392, 150, 92, "kohya", "save")
    card.file(392, 318, 92, "peft", "export")


@card_of("21 Extract a LoRA", "The difference of two", "checkpoints as a LoRA")
def extract_lora(card: Card) -> None:
    equation(card, "tuned", "−", "base", "LoRA")


@card_of("23 Bake a LoRA", "A LoRA baked", "into a checkpoint")
def bake_lora(card: Card) -> None:
    equation(card, "base", "+", "0.8 LoRA", "new")


def main() -> int:
    for name, (title, draw) in CARDS.items():
        card = Card(*title)
        draw(card)
        card.save(ROOT / "workflows" / f"{name}.jpg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
