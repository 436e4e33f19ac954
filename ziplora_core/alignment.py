"""How near pictures are to others and to a prompt: the ZipLoRA paper's three metrics."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

HEADING = ("metric", "encoder", "pairs", "cosine")


@dataclass(frozen=True)
class Alignment:
    """One row of the paper's Table 2 (Shah et al. 2023, arXiv:2311.13600), of one method.

    Args:
        metric: what was compared, e.g. `style (CLIP-I)`.
        encoder: with what.
        pairs: how many cosines the mean is of.
        cosine: their mean.
    """

    metric: str
    encoder: str
    pairs: int
    cosine: float

    def cells(self, digits: int = 4) -> tuple[str, ...]:
        """Write it as a row below `HEADING`."""
        return self.metric, self.encoder, str(self.pairs), f"{self.cosine:.{digits}f}"


def mean_cosine(pictures: Tensor, others: Tensor) -> float:
    """Average cos(a, b) over every a of `pictures` `(n, d)` and every b of `others` `(m, d)`.

    As DreamBooth's CLIP-I and DINO (Ruiz et al. 2023, arXiv:2208.12242, sec. 4.2); float64.
    """
    a, b = (F.normalize(rows.double(), dim=-1) for rows in (pictures, others))
    return float((a @ b.T).mean())


def as_csv(rows: Sequence[Alignment]) -> str:
    """Write alignments as CSV with a heading, seven digits each."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([HEADING, *(row.cells(7) for row in rows)])
    return text.getvalue()
