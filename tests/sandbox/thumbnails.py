"""Draw the workflows' thumbnails, which ComfyUI's template browser shows: `make thumbnails`.

Schemes in the miniature world's own shapes and styles: what goes in, and what comes out. No model
has drawn them. A card is square, as the browser's are, and readable at half its size.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from miniworld.scenes import Scene, render
from miniworld.styles import Style

from .paths import ROOT

SIDE, SMOOTH = 512, 2
GROUND, INK, MUTED, LINE, LIGHT = "#1d1e26", "#ffffff", "#a9adbb", "#4a4d5c", "#7aa2ff"
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


class Card:
    """One thumbnail; places and sizes in its own 512 × 512 pixels."""

    def __init__(self, *title: str) -> None:
        self.image = Image.new("RGB", (SIDE * SMOOTH, SIDE * SMOOTH), GROUND)
        self.draw = ImageDraw.Draw(self.image)
        for number, line in enumerate(title):
            self.text(line, SIDE / 2, 38 + 36 * number, 31, INK)

    def text(self, words: str, x: float, y: float, size: int = 21, colour: str = MUTED) -> None:
        """Write words around a point."""
        self.draw.text(
            (x * SMOOTH, y * SMOOTH), words, colour, _font(colour, size * SMOOTH), anchor="mm"
        )

    def tile(self, scene: Scene, x: float, y: float, side: int, words: str = "") -> None:
        """Draw a scene with its left upper corner there, and words below it."""
        pixels = side * SMOOTH
        values = (render(scene, pixels).clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
        mask = Image.new("L", (pixels, pixels))
        ImageDraw.Draw(mask).rounded_rectangle((0, 0, pixels - 1, pixels - 1), 10 * SMOOTH, 255)
        place = (round(x * SMOOTH), round(y * SMOOTH))
        self.image.paste(Image.fromarray(np.asarray(values)), place, mask)
        if words:
            self.text(words, x + side / 2, y + side + 20)

    def file(self, x: float, y: float, side: int, words: str, below: str = "") -> None:
        """Draw a LoRA file in a square: a sheet with its words on it."""
        left, right, corner = x + side * 0.14, x + side * 0.86, side * 0.24
        sheet = [(left, y), (right - corner, y), (right, y + corner), (right, y + side),
                 (left, y + side)]  # fmt: skip
        scaled = [(a * SMOOTH, b * SMOOTH) for a, b in sheet]
        self.draw.polygon(scaled, "#31343f", LIGHT, 3 * SMOOTH)
        size = 21
        while _font(INK, size).getlength(words) > side * 0.62:
            size -= 1
        self.text(words, x + side / 2, y + side * 0.58, size, INK)
        if below:
            self.text(below, x + side / 2, y + side + 20)

    def arrow(self, x: float, y: float, across: float, down: float) -> None:
        """Draw an arrow from a point."""
        ends = ((x * SMOOTH, y * SMOOTH), ((x + across) * SMOOTH, (y + down) * SMOOTH))
        self.draw.line(ends, LIGHT, 5 * SMOOTH)
        tip, wing = np.array(ends[1]), np.array([across, down]) / np.hypot(across, down)
        turned = np.array([-wing[1], wing[0]])
        base = tip - wing * 4 * SMOOTH
        points = (
            tip + wing * 14 * SMOOTH,
            base + turned * 12 * SMOOTH,
            base - turned * 12 * SMOOTH,
        )
        self.draw.polygon([tuple(point) for point in points], LIGHT)

    def track(self, y: float, at: float) -> None:
        """Draw a slider from −2 to 2, and its knob."""
        left, right = 90 * SMOOTH, (SIDE - 90) * SMOOTH
        self.draw.line((left, y * SMOOTH, right, y * SMOOTH), LINE, 8 * SMOOTH)
        knob, radius = left + (right - left) * (at + 2) / 4, 15 * SMOOTH
        self.draw.line((left + (right - left) / 2, y * SMOOTH, knob, y * SMOOTH), LIGHT, 8 * SMOOTH)
        box = (knob - radius, y * SMOOTH - radius, knob + radius, y * SMOOTH + radius)
        self.draw.ellipse(box, INK)
        for value in (-2, 0, 2):
            self.text(f"{value:+d}".replace("-", "−") if value else "0",
                      90 + (SIDE - 180) * (value + 2) / 4, y + 34)  # fmt: skip

    def lines(self, x: float, y: float, wide: int, high: int, *series: tuple[float, ...]) -> None:
        """Draw series of values in [0, 1] as lines over one another, the first one muted."""
        self._axes(x, y, wide, high)
        for values, colour in zip(series, (MUTED, LIGHT), strict=True):
            step = wide / (len(values) - 1)
            points = [
                ((x + number * step) * SMOOTH, (y + high * (1 - value)) * SMOOTH)
                for number, value in enumerate(values)
            ]
            self.draw.line(points, colour, 5 * SMOOTH, joint="curve")

    def hill(self, x: float, y: float, wide: int, high: int, cut: float = 0.0) -> None:
        """Draw how values are spread around zero; those nearer to it than `cut` are muted."""
        self._axes(x, y, wide, high)
        bars = 25
        for number, place in enumerate(np.linspace(-1, 1, bars)):
            left, top = x + wide * number / bars, y + high * (1 - 0.96 * np.exp(-3 * abs(place)))
            box = [left + 2, top, left + wide / bars - 1, y + high - 2]
            self.draw.rectangle(
                [side * SMOOTH for side in box], LINE if abs(place) < cut else LIGHT
            )

    def _axes(self, x: float, y: float, wide: int, high: int) -> None:
        corners = [(x, y), (x, y + high), (x + wide, y + high)]
        self.draw.line([(a * SMOOTH, b * SMOOTH) for a, b in corners], LINE, 3 * SMOOTH)

    def save(self, path: Path) -> None:
        small = self.image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        small.save(path, quality=88, optimize=True)


def _font(colour: str, size: int) -> ImageFont.FreeTypeFont:
    """DejaVu, which matplotlib brings along; bold for what is written in ink."""
    name = "DejaVuSans-Bold.ttf" if colour == INK else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)


def star(size: float, brightness: float = 0.0) -> Scene:
    """What the sliders of the cards move: −1 … 1 both."""
    return Scene("star", PLAIN, radius=0.5 + 0.22 * size, brightness=0.8 * brightness)


def subject_pictures(card: Card, x: float, y: float, side: int) -> None:
    """Draw the four training pictures in a square."""
    half = (side - 8) // 2
    for number, scene in enumerate(SUBJECT):
        card.tile(scene, x + number % 2 * (half + 8), y + number // 2 * (half + 8), half)


def row(card: Card, y: float, side: int, *scenes: Scene) -> None:
    """Draw scenes side by side in the middle."""
    gap = 20
    left = (SIDE - len(scenes) * side - (len(scenes) - 1) * gap) / 2
    for number, scene in enumerate(scenes):
        card.tile(scene, left + number * (side + gap), y, side)


def ziplora_merge() -> Card:
    card = Card("My subject", "in my style")
    card.file(40, 120, 120, "subject", "LoRA")
    card.file(40, 310, 120, "style", "LoRA")
    card.arrow(170, 190, 52, 40)
    card.arrow(170, 380, 52, -40)
    card.tile(BOTH, 250, 165, 230, "one learned merge")
    return card


def apply_saved_merge() -> Card:
    card = Card("Draw with", "a saved merge")
    card.file(30, 210, 130, "merge", "LoRA")
    card.arrow(175, 275, 45, 0)
    card.tile(BOTH, 250, 160, 230, "style at 0.7")
    return card


def merge_without_training() -> Card:
    card = Card("Merge", "without training")
    card.file(30, 150, 120, "subject")
    card.text("+", 180, 210, 44, LIGHT)
    card.file(210, 150, 120, "style")
    card.text("=", 358, 210, 44, LIGHT)
    card.file(385, 150, 110, "sum")
    for number, name in enumerate(("direct", "ties", "null_space", "svd", "knots", "tsv")):
        card.text(name, 110 + 146 * (number % 3), 350 + 46 * (number // 3), 22)
    card.text("… eleven ways", 256, 450, 22)
    return card


def dreambooth_subject() -> Card:
    card = Card("Train a LoRA", "of your subject")
    subject_pictures(card, 36, 165, 216)
    card.text("four pictures", 144, 412)
    card.arrow(270, 273, 55, 0)
    card.file(348, 200, 146, "sks dog", "subject LoRA")
    return card


def style_from_one_image() -> Card:
    card = Card("Train a LoRA of a style", "from one picture")
    card.tile(STYLE, 36, 165, 216, "one picture")
    card.arrow(270, 273, 55, 0)
    card.file(348, 200, 146, "in … style", "style LoRA")
    return card


def subject_in_style_from_scratch() -> Card:
    card = Card("From pictures to", "my subject in my style")
    subject_pictures(card, 36, 125, 160)
    card.tile(STYLE, 36, 322, 160)
    card.arrow(212, 205, 40, 40)
    card.arrow(212, 402, 40, -40)
    card.tile(BOTH, 280, 195, 205, "train, train, merge")
    return card


def concept_slider_train_text() -> Card:
    card = Card("Train a slider", "from words")
    card.text("“tiny shape”", 118, 150, 24, LIGHT)
    card.text("“huge shape”", 394, 150, 24, LIGHT)
    row(card, 190, 140, star(-1), star(0), star(1))
    card.track(400, 1)
    return card


def concept_slider_train_images() -> Card:
    card = Card("Train a slider", "from pictures")
    for number, name in enumerate(("star", "house")):
        y = 140 + 150 * number
        small, large = (Scene(name, PLAIN, radius=radius) for radius in (0.34, 0.68))
        card.tile(small, 110, y, 130)
        card.tile(large, 272, y, 130)
    card.text("before", 175, 448)
    card.text("after", 337, 448)
    return card


def concept_slider_apply() -> Card:
    card = Card("Draw with a slider")
    row(card, 110, 210, star(0), star(0.9))
    card.arrow(238, 345, 36, 0)
    card.track(420, 1.5)
    return card


def concept_slider_stack() -> Card:
    card = Card("Two sliders at once")
    for line, size in enumerate((-1.0, 0.0, 1.0)):
        for column, light in enumerate((-1.0, 0.0, 1.0)):
            card.tile(star(size, light), 118 + column * 116, 90 + line * 116, 108)
    card.text("brightness →", 288, 462)
    card.text("size ↓", 62, 258)
    return card


def unziplora_train() -> Card:
    card = Card("One picture", "into two LoRAs")
    card.tile(BOTH, 32, 165, 220, "one picture")
    card.arrow(266, 240, 48, -40)
    card.arrow(266, 310, 48, 40)
    card.file(350, 118, 125, "subject", "LoRA")
    card.file(350, 310, 125, "style", "LoRA")
    return card


def unziplora_recombine() -> Card:
    card = Card("The subject of A", "in the style of B")
    card.tile(BOTH, 36, 118, 150, "A")
    card.tile(Scene("house", DOTTED, radius=0.58), 36, 306, 150, "B")
    card.arrow(212, 215, 40, 40)
    card.arrow(212, 388, 40, -40)
    card.tile(Scene("cat", DOTTED, radius=0.6), 280, 195, 205)
    return card


def unziplora_variations() -> Card:
    card = Card("New pictures from one")
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
    return card


def look_at_a_merge() -> Card:
    card = Card("What did", "the merge do?")
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
    return card


def prune_lora() -> Card:
    card = Card("How much of a LoRA", "counts?")
    card.hill(106, 118, 300, 120, cut=0.3)
    card.text("the smallest 80 % are zeroed", 256, 264)
    row(card, 296, 150, *(SUBJECT[0], SUBJECT[0]))
    card.text("whole", 171, 468)
    card.text("pruned", 341, 468)
    return card


def alignment_scores() -> Card:
    card = Card("How near is it,", "in numbers?")
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
    return card


def lora_tools() -> Card:
    card = Card("Tools for LoRA files")
    for number, (words, below) in enumerate(
        (("any", "import"), ("rank", "resize"), ("peft", "export"), ("W − W0", "extract"),
         ("W + α·L", "bake"), ("a + b", "merge"))
    ):  # fmt: skip
        card.file(46 + number % 3 * 150, 110 + number // 3 * 185, 120, words, below)
    return card


CARDS: dict[str, Callable[[], Card]] = {
    card.__name__: card
    for card in (
        *(ziplora_merge, apply_saved_merge, merge_without_training, dreambooth_subject),
        *(style_from_one_image, subject_in_style_from_scratch, concept_slider_train_text),
        *(concept_slider_train_images, concept_slider_apply, concept_slider_stack),
        *(unziplora_train, unziplora_recombine, unziplora_variations, look_at_a_merge),
        *(prune_lora, alignment_scores, lora_tools),
    )
}
"""By the workflow's name."""


def main() -> int:
    for name, draw in CARDS.items():
        draw().save(ROOT / "workflows" / f"{name}.jpg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
