"""Subject and style of a picture by the features of a UNet that looks at its noised version.

The features of a diffusion model match the parts of objects across pictures (DIFT, Tang et al.
2023, arXiv:2306.03881); their mean and deviation per channel describe a style (Huang & Belongie
2017, arXiv:1703.06868). So the first are compared without what the second compare.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

_LEAST = 1e-3
"""Added to deviations, so that channels that hardly vary do not decide."""


def likeness(features: Tensor, others: Tensor) -> Tensor:
    """Compute how alike the shapes in pictures are, `(n, m)`, in −1…1.

        ½ mean_p max_q cos(f_p, g_q) + ½ mean_q max_p cos(f_p, g_q)

    f_p and g_q are the features at places p and q, normalised over each picture's places first, so
    that colours and textures of the whole picture do not count.

    Args:
        features: features `(n, c, h, w)`.
        others: features `(m, c, h, w)`.
    """
    cosines = torch.einsum("npc,mqc->nmpq", _at_places(features), _at_places(others))
    return (cosines.amax(3).mean(2) + cosines.amax(2).mean(2)) / 2


def _at_places(features: Tensor) -> Tensor:
    """Normalise features over each picture's places; return unit vectors `(n, h · w, c)`."""
    deviation, centre = torch.std_mean(features, (2, 3), keepdim=True)
    normal = (features - centre) / (deviation + _LEAST)
    return F.normalize(normal.flatten(2).transpose(1, 2), dim=2)


@dataclass(frozen=True)
class StyleAxis:
    """The direction from pictures without a style to those in it, among channel statistics.

    Fisher's linear discriminant with a diagonal covariance.

    Args:
        weights: the direction `(2 c,)`.
    """

    weights: Tensor

    def amounts(self, features: Tensor) -> Tensor:
        """Project pictures with features `(n, c, h, w)`; returns `(n,)`."""
        return statistics(features) @ self.weights


def style_axis(style: Tensor, without: Sequence[Tensor]) -> StyleAxis:
    """Fit the axis on pictures in the style and on those without it, each `(n, c, h, w)`, n ≥ 2.

    Args:
        style: features of pictures in the style.
        without: features of pictures without it, those of the same subject first, from which the
            direction starts; all of them tell how much the statistics vary.
    """
    inside, outside = statistics(style), statistics(torch.cat(list(without)))
    spread = (inside.std(0) + outside.std(0)) / 2 + _LEAST
    return StyleAxis((inside.mean(0) - statistics(without[0]).mean(0)) / spread.square())


def statistics(features: Tensor) -> Tensor:
    """Compute mean and deviation of each channel over a picture's places: `(n, 2 c)`."""
    deviation, centre = torch.std_mean(features, (2, 3))
    return torch.cat([centre, deviation], 1)
