"""Alignment scores of pictures with pictures and prompts: the ZipLoRA paper's three metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from .tables import csv_text

HEADING = ("metric", "encoder", "pairs", "cosine")


@dataclass(frozen=True)
class Alignment:
    """One row of the paper's Table 2 (Shah et al. 2023, arXiv:2311.13600), for one method.

    Args:
        metric: name of the metric, e.g. `style (CLIP-I)`.
        encoder: name of the encoder.
        pairs: number of cosines.
        cosine: their mean.
    """

    metric: str
    encoder: str
    pairs: int
    cosine: float

    def cells(self, digits: int = 4) -> tuple[str, ...]:
        """Return the row's cells, in the order of `HEADING`."""
        return self.metric, self.encoder, str(self.pairs), f"{self.cosine:.{digits}f}"


def mean_cosine(pictures: Tensor, others: Tensor) -> float:
    """Compute the mean cos(a, b) over all rows a of `pictures` `(n, d)` and b of `others` `(m, d)`.

    It is DreamBooth's CLIP-I and DINO score (Ruiz et al. 2023, arXiv:2208.12242, sec. 4.2), in
    float64.
    """
    a, b = (F.normalize(rows.double(), dim=-1) for rows in (pictures, others))
    return float((a @ b.T).mean())


def as_csv(rows: Sequence[Alignment]) -> str:
    """Return alignments as CSV with a heading and seven decimals."""
    return csv_text([HEADING, *(row.cells(7) for row in rows)])
