"""Pictures of the base model and of each LoRA alone: the ceiling of merges, and a blind sheet.

The sheets without names are for a reader who writes down what each row shows; the key lies beside.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from concurrent.futures import Executor
from statistics import mean

from PIL import Image
from torch import Tensor

from miniworld import shapes, styles
from miniworld.parts import load_parts
from miniworld.probe_files import load_probes
from miniworld.styles import Style
from sandbox.commands import say
from ziplora_core.files.writer import kohya_tensors

from . import document
from .cache import FOLDER
from .measure import REFERENCES, Reference, overlaps, references, seen
from .sheet import contact_sheet
from .sources import content_lora, style_lora
from .subjects import PAIRS, STYLE_WORD, SUBJECT, TEST, Pair
from .table import Row, markdown

IN_STYLES = (Style("sunset", "plain"), Style("candy", "striped"), Style("berry", "dotted"))
"""A content LoRA draws its subject in these seen styles, which it was not trained in."""
ON_SHAPES = ("star", "key", "house")
"""A style LoRA draws these seen shapes, which its one picture does not show."""
PICTURES, SEED = 4, 1
FIGURES = document.ROOT / "docs" / "quality_single.json"
TESTED = " (test)"
COLUMNS = {"alignment": "alignment", "real": "real pictures", "right": "seen right",
           "palette": "palette", "overlap": "silhouette"}  # fmt: skip

Drawn = Mapping[str, Tensor]


def write(workers: Executor) -> None:
    """Draw and measure everything, write the tables, the figures and the sheets."""
    document.require([f"single {kind}" for kind in ("base", "subjects", "styles")])
    figures = {}
    subjects = {pair.subject: pair for pair in PAIRS}
    in_style = {pair.style.words: pair for pair in PAIRS}
    parts = {
        "base": [workers.submit(base_shape, name) for name in shapes.SEEN],
        "subjects": [workers.submit(one_subject, pair) for pair in subjects.values()],
        "styles": [workers.submit(one_style, pair) for pair in in_style.values()],
    }
    done = {kind: [job.result() for job in jobs] for kind, jobs in parts.items()}
    for kind, results in done.items():
        tested = [result for result in results if result[0].endswith(TESTED)]
        means = {"**mean**": [r for r in results if r not in tested], "**mean (test)**": tested}
        table = {name: row for name, row, _ in results} | {
            name: _means(some) for name, some in means.items() if some
        }
        text = markdown(table, COLUMNS, kind)
        say(text)
        document.put(f"single {kind}", text)
        figures[kind] = {name: row for name, row, _ in results}
        sheet = {name: drawn for name, _, drawn in results}
        drawn = contact_sheet(f"Each alone: {kind}", sheet, scale=0.5)
        document.save(drawn.quantize(256, dither=Image.Dither.NONE), f"quality_{kind}.png")
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n")
    blind = random.Random(6).sample(done["subjects"], len(done["subjects"]))
    rows = {f"row {n}": drawn for n, (_, _, drawn) in enumerate(blind, start=1)}
    contact_sheet("What does each row show?", rows, scale=1.0).save(FOLDER / "blind.png")
    (FOLDER / "blind.json").write_text(json.dumps([name for name, *_ in blind]))
    say(f"written: {FOLDER / 'blind.png'}, and its key")


def base_shape(name: str) -> tuple[str, Row, Drawn]:
    """Draw a named shape with the base model alone."""
    return _in_styles(name, name, None)


def one_subject(pair: Pair) -> tuple[str, Row, Drawn]:
    """Draw a held-out subject with its LoRA, in three styles."""
    return _in_styles(pair.subject, SUBJECT.removeprefix("a "), pair)


def one_style(pair: Pair) -> tuple[str, Row, Drawn]:
    """Draw three shapes with a style LoRA."""
    parts, refs = load_parts(), references(pair, load_probes())
    model = parts.with_lora(kohya_tensors(style_lora(parts, pair).modules))
    drawn = {
        shape: parts.draw(model, f"a {shape} in {STYLE_WORD} style", PICTURES, SEED)
        for shape in ON_SHAPES
    }
    names = {"palette": pair.style.palette, "texture": pair.style.texture}
    figures = {
        "alignment": mean(refs.style.alignment(p) for p in drawn.values()),
        "real": refs.style.real,
        "right": mean(_share(refs.style, p, names) for p in drawn.values()),
        "palette": mean(
            seen(refs.style.probe, "palette", pair.style.palette, p) for p in drawn.values()
        ),
        "overlap": mean(
            float(overlaps(pictures, shape, pair.style).mean()) for shape, pictures in drawn.items()
        ),
    }
    return _marked(pair.style.words, pair), figures, drawn


def _in_styles(name: str, subject: str, pair: Pair | None) -> tuple[str, Row, Drawn]:
    parts, probes = load_parts(), load_probes()
    model = parts.model
    if pair is not None:
        model = parts.with_lora(kohya_tensors(content_lora(parts, pair).modules))
    drawn = {
        style.words: parts.draw(model, f"a {subject} in {style.words} style", PICTURES, SEED)
        for style in IN_STYLES
    }
    pictures = Pair(name, styles.HELD_OUT[0], "").new_content_pictures(REFERENCES)
    reference = Reference(probes["subject"], ("subject",), pictures)
    figures = {
        "alignment": mean(reference.alignment(p) for p in drawn.values()),
        "real": reference.real,
        "right": mean(_share(reference, p, {"subject": name}) for p in drawn.values()),
        "palette": mean(
            seen(probes["style"], "palette", style.palette, pictures)
            for style, pictures in zip(IN_STYLES, drawn.values(), strict=True)
        ),
        "overlap": mean(
            float(overlaps(pictures, name, style).mean())
            for style, pictures in zip(IN_STYLES, drawn.values(), strict=True)
        ),
    }
    return _marked(name, pair), figures, drawn


def _marked(name: str, pair: Pair | None) -> str:
    tested = any(pair and name in (p.subject, p.style.words) for p in TEST)
    return f"{name}{TESTED}" if tested else name


def _share(reference: Reference, pictures: Tensor, names: Mapping[str, str]) -> float:
    return float(reference.recognised(pictures, names).float().mean())


def _means(results: list[tuple[str, Row, Drawn]]) -> Row:
    return {column: mean(float(row[column] or 0) for _, row, _ in results) for column in COLUMNS}
