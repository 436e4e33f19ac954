"""Figures of trainings and merges, in one style on a dark or a light background."""

from .curves import loss_curves
from .distributions import coefficient_histograms, entries_histogram, layer_cosines_chart
from .pictures import grid
from .style import DARK, LIGHT, THEMES, Theme
from .tables import table

__all__ = [
    "DARK",
    "LIGHT",
    "THEMES",
    "Theme",
    "coefficient_histograms",
    "entries_histogram",
    "grid",
    "layer_cosines_chart",
    "loss_curves",
    "table",
]
