"""Train the text encoders to understand captions, before the UNet reads them; SDXL's are CLIP's.

From the pooled output, and from what both encoders say of the last word, a linear layer has to tell
every attribute that the caption states, or that it does not state it.
"""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from . import shapes, styles
from .loop import Averaged, Schedule, Training
from .network import TrainedText, Vocabulary, new_text_encoders
from .scenes import BRIGHTNESSES, COMPANIONS, PLACES, SIZES
from .world import ANY_SHAPE, draw_caption, draw_training_scene

SCHEDULE = Schedule(800, 1e-3, 1e-5)
BATCH = 32

STATED = {
    "subject": ("", *shapes.SEEN, ANY_SHAPE),
    "palette": ("", *styles.SEEN_PALETTES),
    "texture": ("", *styles.SEEN_TEXTURES),
    "place": tuple(PLACES),
    "companion": ("", *COMPANIONS),
    "size": tuple(text for _, text in SIZES),
    "brightness": tuple(text for _, text in BRIGHTNESSES),
}


class TextTraining(Training):
    """Both text encoders learning to be read."""

    def __init__(self, vocabulary: Vocabulary, seed: int = 0) -> None:
        self.seed = seed
        self.text = TrainedText(new_text_encoders(seed), vocabulary)
        torch.manual_seed(seed)
        classes = sum(len(names) for names in STATED.values())
        width = self.text.width
        self.heads = nn.ModuleList([nn.Linear(width, classes), nn.Linear(2 * width, classes)])
        parameters = [*self.text.parameters(), *self.heads.parameters()]
        self.averaged = Averaged([p for p in parameters if p.requires_grad], 0.99)

    def loss(self) -> Tensor:
        rng = random.Random(f"text {self.seed} {self.step}")
        captions = [draw_caption(rng, draw_training_scene(rng)) for _ in range(BATCH)]
        known = {name: torch.tensor([stated(c)[name] for c in captions]) for name in STATED}
        with torch.autocast("cpu", torch.bfloat16):
            context, pooled = self.text(captions)
            last = context[torch.arange(BATCH), self.text.vocabulary.ends(captions)]
            outputs = [head(x).float() for head, x in zip(self.heads, (pooled, last), strict=True)]
        return torch.stack([_error(output, known) for output in outputs]).sum()


def stated(caption: str) -> dict[str, int]:
    """Read a caption of the world: the class of every attribute, by the order of `STATED`."""
    scene, _, style = caption.partition(" in ")
    scene, _, companion = scene.partition(" with a small ")
    place = next((p for p in PLACES if p and scene.endswith(p)), "")
    words = scene.removesuffix(place).split()
    said = {
        "companion": companion.strip(),
        "place": place,
        "brightness": _adjective(words, STATED["brightness"]),
        "size": _adjective(words, STATED["size"]),
        "subject": words[-1],
        **{name: _adjective(style.split(), STATED[name]) for name in ("palette", "texture")},
    }
    return {name: STATED[name].index(value) for name, value in said.items()}


def _adjective(words: list[str], names: tuple[str, ...]) -> str:
    text = f" {' '.join(words)} "
    found = [name for name in names if name and f" {name} " in text]
    return max(found, key=len, default="")


def _error(logits: Tensor, known: dict[str, Tensor]) -> Tensor:
    parts = logits.split([len(names) for names in STATED.values()], dim=1)
    return torch.stack(
        [cross_entropy(p, known[n]) for n, p in zip(STATED, parts, strict=True)]
    ).sum()
