"""Draw the icon and the banner that the ComfyUI Registry shows: `make thumbnails`.

Both show one subject, plain and in a style, with a zip between the two.
"""

from __future__ import annotations

import sys

from miniworld.scenes import Scene

from .card import GROUND, INK, LIGHT, SMOOTH, Card
from .paths import ROOT
from .thumbnails import BOTH, PLAIN, STYLE, SUBJECT

UNSTYLED = Scene("cat", PLAIN, radius=BOTH.radius)
ICON, BANNER = (400, 400), (1260, 540)
"""The Registry's largest icon, and a banner of its 21:9."""
TEETH = 9


def icon() -> Card:
    card = Card(size=ICON)
    halves(card, 10, 10, 380)
    return card


def banner() -> Card:
    card = Card(size=BANNER)
    card.text("ZipLoRA", 310, 215, 92, INK)
    card.text("my subject in my style", 310, 310, 38, LIGHT)
    card.text("for ComfyUI", 310, 370, 30)
    card.tile(SUBJECT[0], 640, 70, 180, "subject")
    card.tile(STYLE, 640, 300, 180, "style")
    card.arrow(838, 160, 42, 40)
    card.arrow(838, 390, 42, -40)
    halves(card, 905, 130, 290)
    return card


def halves(card: Card, x: int, y: int, side: int) -> None:
    """Draw the subject in a square, plain on the left and in the style on the right of a zip."""
    card.tile(UNSTYLED, x, y, side)
    plain = card.image.copy()
    card.tile(BOTH, x, y, side)
    middle = (x + side // 2) * SMOOTH
    left = (x * SMOOTH, y * SMOOTH, middle, (y + side) * SMOOTH)
    card.image.paste(plain.crop(left), left[:2])
    tooth = side / (2 * TEETH)
    for n in range(TEETH):
        for across, at in ((-tooth, 2 * n), (0, 2 * n + 1)):
            top, start = y + at * tooth, x + side / 2 + across
            box = [v * SMOOTH for v in (start, top, start + tooth, top + tooth)]
            card.draw.rectangle(box, LIGHT if across else INK, GROUND, SMOOTH)


def main() -> int:
    for name, card in (("icon", icon()), ("banner", banner())):
        card.save(ROOT / "docs" / "images" / f"{name}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
