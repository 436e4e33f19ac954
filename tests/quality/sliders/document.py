"""Write the results into QUALITY.md's tables of sliders, its JSON and the sheet."""

from __future__ import annotations

import json
from collections.abc import Mapping

from sandbox.commands import say
from sandbox.paths import ROOT

from ..document import put, save
from ..sheet import contact_sheet
from ..table import markdown
from .measure import SCALES
from .run import Moved

FIGURES = ROOT / "docs" / "quality_sliders.json"
COLUMNS = {
    "spearman": "Spearman",
    "change": "change, −2 to 2",
    "spread": "between seeds",
    "change / spread": "change / between seeds",
    "others": "others move",
    "others, editing": "by prompt editing",
    "of editing": "share",
    "another subject": "another subject",
}
ABLATION = {
    "change": "change, −2 to 2",
    "others": "others move",
    "another subject": "another subject",
}
Rows = Mapping[str, Mapping[str, float]]


def write(sliders: Mapping[str, Moved], ablation: Rows) -> None:
    """Write both tables, the figures and the sheet, and say the tables."""
    rows = {name: moved.figures for name, moved in sliders.items()}
    for mark, title, columns, table in (
        ("sliders", "slider", COLUMNS, rows),
        ("slider ablation", "brightness from words", ABLATION, ablation),
    ):
        text = markdown(table, columns, title)
        say(f"\n{text}")
        put(mark, text)
    FIGURES.write_text(json.dumps({"sliders": rows, "ablation": ablation}, indent=1) + "\n")
    drawn = {
        name: {f"{scale:g}": moved.pictures[n] for n, scale in enumerate(SCALES)}
        for name, moved in sliders.items()
    }
    title = "Sliders from −2 to 2 in a miniature SDXL, two noises each"
    save(contact_sheet(title, drawn, scale=0.5), "quality_sliders.png")
