"""Write the results into QUALITY.md's table of UnZipLoRA, its JSON and the sheet."""

from __future__ import annotations

import json
from collections.abc import Mapping
from statistics import mean

from sandbox.commands import say
from sandbox.paths import ROOT

from ..document import put, save
from ..sheet import Row, contact_sheet
from ..table import markdown
from .run import SHOWN, STYLES, SUBJECTS, Result, picture

FIGURES = ROOT / "docs" / "quality_unziplora.json"
COLUMNS = {
    "content": "content alone",
    "content, other styles": "… in other styles",
    "those styles": "those styles",
    "style": "style alone",
    "style, other subjects": "… on other subjects",
    "those subjects": "those subjects",
    "together, subject": "both: subject",
    "together, style": "both: style",
    "recombined, subject": "recombined: subject",
    "recombined, style": "recombined: style",
}
DRAWN = (
    "content",
    f"content in {STYLES[0]}",
    "style",
    f"{SUBJECTS[0]} in style",
    "together",
    "recombined",
)


def write(results: Mapping[str, Mapping[str, Mapping[str, Result]]]) -> None:
    """Write the tables of means, all figures and a sheet for each picture, and say the tables."""
    for kind, methods in results.items():
        means = {
            method: {c: mean(found[c] for found, _ in pairs.values()) for c in COLUMNS}
            for method, pairs in methods.items()
        }
        table = markdown(means, COLUMNS)
        say(f"\n{kind} pictures\n{table}")
        put(f"unziplora {kind}", table)
        for pair in SHOWN[kind]:
            rows: dict[str, Row] = {"the one picture": {DRAWN[0]: picture(pair)}}
            for method, pairs in methods.items():
                drawn = pairs[pair.name][1]
                rows[method] = {column: drawn[column][:2] for column in DRAWN}
            sheet = contact_sheet(f"One picture, {pair.name}, taken apart", rows, scale=0.6)
            save(sheet, f"quality_unziplora_{pair.subject}.png")
    figures = {
        kind: {m: {p: found for p, (found, _) in pairs.items()} for m, pairs in methods.items()}
        for kind, methods in results.items()
    }
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n")
