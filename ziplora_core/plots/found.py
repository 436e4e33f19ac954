"""The candidates of a search for the best strengths: rows of a table, and pictures in a sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import problem
from ..lora.merged import MergedLoRA
from ..merging.strengths import Strengths, write_strengths
from ..merging.successive_halving import Trial
from ..training.random import Stream, generator
from .judge import Judged, mean
from .pictures import grid
from .style import DARK, Pixels, Theme, rgb

_SIDE = 512
"""Largest side of a picture in the sheet, in pixels."""
_HEADING = (
    *("kind", "content", "style", "negative", "pictures"),
    *("subject", "style score", "smaller", "place"),
)


@dataclass(frozen=True)
class FoundMerge:
    """A candidate of the search.

    Args:
        kind: the input that its merge came from.
        trial: its strengths, and the scores of its pictures.
        merged: the merge with these strengths folded in.
        pictures: its first pictures `(n, h, w, 3)`, uint8: the search's result stays in memory.
    """

    kind: str
    trial: Trial[Judged]
    merged: MergedLoRA
    pictures: Tensor

    @property
    def strengths(self) -> Strengths:
        return self.trial.strengths

    def images(self) -> Tensor:
        """Return its first pictures `(n, h, w, 3)` in 0…1."""
        return self.pictures.float() / 255


@dataclass(frozen=True)
class FoundMerges:
    """All candidates that got pictures: the value of a FOUND_MERGES.

    Args:
        rows: the one that the search chose, then the others of its kind by score; then those of
            the other kind.
        negative_strength: the strength for the negative prompt that all were drawn with.
        seed: the seed of the first picture of each.
    """

    rows: Sequence[FoundMerge]
    negative_strength: float
    seed: int

    def chosen(self, choice: int) -> FoundMerge:
        """Return row `choice` from 1; 0 is the one that the search chose.

        Raises:
            ZipLoRAError: there is no such row.
        """
        if not 0 <= choice <= len(self.rows):
            raise problem(
                "choice",
                found=str(choice),
                expected=f"a row from 1 to {len(self.rows)}, or 0 for the one that was found",
                advice="Click a picture on the node, or look up the row's number in the sheet.",
            )
        return self.rows[max(choice - 1, 0)]

    def labels(self) -> list[str]:
        """Name every row: its number, its kind if there are two, its strengths and its score."""
        several = len({row.kind for row in self.rows}) > 1
        return [
            f"{n}: {row.kind + ' ' if several else ''}{write_strengths(row.strengths)}, "
            f"{row.trial.mean:.2f}"
            for n, row in enumerate(self.rows, start=1)
        ]

    def shuffled(self) -> list[int]:
        """Return the rows' numbers from 1 in an order that says nothing about them."""
        order = torch.randperm(len(self.rows), generator=generator(self.seed, Stream.BLIND))
        return [int(n) + 1 for n in order]


def found_rows(found: FoundMerges, digits: int = 7) -> list[tuple[str, ...]]:
    """Arrange a heading and a row for each candidate as cells."""
    rows: list[tuple[str, ...]] = [_HEADING]
    for place, row in enumerate(found.rows, start=1):
        scores = row.trial.scores
        numbers = (*row.strengths, found.negative_strength)
        means = mean([s.subject for s in scores]), mean([s.style for s in scores]), row.trial.mean
        rows.append(
            (
                row.kind, *(f"{number:g}" for number in numbers), str(len(scores)),
                *(f"{score:.{digits}f}" for score in means), str(place),
            )
        )  # fmt: skip
    return rows


def sheet(found: FoundMerges, theme: Theme = DARK) -> Pixels:
    """Draw a row of pictures for each candidate, with its label; a column has one seed.

    Candidates that were dropped early have fewer pictures.
    """
    columns = max(len(row.pictures) for row in found.rows)
    shown = [small(row.images()) for row in found.rows]
    cells = torch.tensor(rgb(theme.ground)).float() / 255
    pictures = cells.expand(len(shown), columns, *shown[0].shape[1:]).clone()
    for n, some in enumerate(shown):
        pictures[n, : len(some)] = some
    seeds = [f"seed {found.seed + n}" for n in range(columns)]
    return grid(pictures, seeds, found.labels(), theme=theme)


def small(pictures: Tensor) -> Tensor:
    """Shrink pictures `(n, h, w, 3)` in 0…1 to at most `_SIDE` pixels; smaller ones stay."""
    height, width = pictures.shape[1:3]
    scale = _SIDE / max(height, width)
    if scale >= 1:
        return pictures
    size = [max(1, round(side * scale)) for side in (height, width)]
    channels_first = pictures.movedim(-1, 1)
    shrunk = F.interpolate(channels_first, size, mode="bilinear", antialias=True)
    return shrunk.movedim(1, -1).clamp(0, 1)
