"""LoRAs made to merge: what in their training decides the picture of both together."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean

from miniworld.parts import Parts, load_parts
from miniworld.probe_files import load_probes
from miniworld.scenes import SIDE
from sandbox.commands import say
from sandbox.paths import ROOT
from ziplora_core.comfy_adapter.train.dreambooth import train_dreambooth
from ziplora_core.comfy_adapter.train.dreambooth_inputs import TrainingInputs
from ziplora_core.dreambooth.options import DreamBoothSettings
from ziplora_core.files.writer import kohya_tensors
from ziplora_core.lora.factors import LoRA, LoraFactors
from ziplora_core.lora.pair import LoRAPair

from . import cache, document, sources, table
from .cache import State
from .conditions import AS_MADE, CONDITIONS
from .experiment import PICTURES, SEED, Bench
from .halves_cells import Halves, joint
from .measure import references
from .methods import DIRECT, TAUGHT, Task
from .subjects import CONTENT_CAPTIONS, STYLE_WORD, SUBJECT, TUNING, Pair


@dataclass(frozen=True)
class Training:
    """How a pair's two LoRAs are trained, where not as in the other parts.

    Args:
        content, style: settings of DreamBooth.
        captions: those of the content's pictures.
        style_on_content: whether the style is learned with the content LoRA on the model.
    """

    content: Mapping[str, object] = field(default_factory=dict)
    style: Mapping[str, object] = field(default_factory=dict)
    captions: Sequence[str] = tuple(CONTENT_CAPTIONS)
    style_on_content: bool = False


AS_IS = "as everywhere: content 400 steps, style 150, rank 16"
FEWER = "style 75 steps"
SMALLER = "rank 4"
BOTH = f"{FEWER}, {SMALLER}"
_RANK: Mapping[str, object] = {"rank": 4, "alpha": 4}
_OTHERS: Mapping[str, object] = {"class_count": 16}
TRIED: dict[str, Training] = {
    AS_IS: Training(),
    FEWER: Training(style={"steps": 75}),
    "content 200 steps": Training({"steps": 200}),
    SMALLER: Training(_RANK, _RANK),
    BOTH: Training(_RANK, {"steps": 75, **_RANK}),
    "style learned on the content LoRA": Training(style_on_content=True),
    "content's captions without style and place": Training(captions=[SUBJECT] * 4),
    "prior preservation, style": Training(
        style={"class_prompt": "a star in desert striped style", **_OTHERS}
    ),
}
TRIED_ON = TUNING[:1]
CHOSEN = (AS_IS, FEWER)
"""The trainings that are drawn on the test pairs."""
CHOSEN_ON = (TUNING[0], TUNING[2], TUNING[4])
DRAWN = {
    "direct": (DIRECT, Halves(negative=1.0)),
    "direct, 0.9 / 0.7, negative 0": (DIRECT, Halves(0.9, 0.7)),
    "closed form, taught": (TAUGHT, Halves()),
}
ALONE = {"content": f"{SUBJECT} in candy striped style", "style": f"a key in {STYLE_WORD} style"}
"""The prompt of each LoRA alone: words that its training has not seen."""
FIGURES = ROOT / "docs" / "quality_made.json"
COLUMNS = {
    "content": "subject alone, another style",
    "style": "style alone, another subject",
    **{
        f"{way}{end}": title
        for way in DRAWN
        for end, title in (
            ("", f"{way}: sum of both"),
            (", difference", "against the first row"),
            (", right", "both right"),
        )
    },
}


def run(workers: Executor, pairs: Sequence[Pair], names: Sequence[str]) -> list[dict[str, State]]:
    """Train, merge, draw and measure; by pair, training and way to draw."""
    asked = [(pair, name) for pair in pairs for name in names]
    found = workers.map(measured, *zip(*asked, strict=True))
    by_pair: dict[str, dict[str, State]] = {pair.name: {} for pair in pairs}
    for (pair, name), cells in zip(asked, found, strict=True):
        by_pair[pair.name][name] = cells
    return list(by_pair.values())


def measured(pair: Pair, name: str) -> State:
    """Train a pair's LoRAs in one way, merge and draw them."""
    parts, probes, training = load_parts(), load_probes(), TRIED[name]
    content = trained(parts, "content", pair, training)
    over = replace(parts, model=parts.with_lora(kohya_tensors(content.modules)))
    style = trained(over if training.style_on_content else parts, "style", pair, training)
    bench = Bench(Task(parts, pair, LoRAPair(content, style)), probes, references(pair, probes))
    cells = {way: joint(bench, *how, CONDITIONS[AS_MADE]) for way, how in DRAWN.items()}
    for half, lora in (("content", content), ("style", style)):
        cells[half] = alone(bench, half, lora)
    say(f"{pair.name}, {name}: {[round(table.both(cells[way]), 2) for way in DRAWN]}")
    return cells


def trained(parts: Parts, half: str, pair: Pair, training: Training) -> LoRA:
    """Train one of the LoRAs, or give the one trained so before."""
    if half == "content":
        pictures, captions = pair.content_pictures(), list(training.captions)
        steps, rate, changed = sources.CONTENT_STEPS, sources.LEARNING_RATE, training.content
    else:
        pictures, captions = pair.style_pictures(), [pair.style_prompt]
        steps, rate, changed = sources.STYLE_STEPS, sources.STYLE_LEARNING_RATE, training.style
    settings = DreamBoothSettings(
        prompt=captions[0], layers=sources.LAYERS, rank=sources.RANK, alpha=sources.RANK,
        steps=steps, learning_rate=rate, resolution=SIDE, seed=0, memory="fast",
        options=sources.OPTIONS,
    )  # fmt: skip
    settings = replace(settings, **changed)
    inputs = TrainingInputs(parts.model, parts.clip, parts.vae, [pictures.movedim(1, -1)], captions)

    def make() -> State:
        with tempfile.TemporaryDirectory() as folder:
            modules = train_dreambooth(inputs, settings, Path(folder)).modules
        return {name: {"down": f.down, "up": f.up, "alpha": f.alpha} for name, f in modules.items()}

    key = {
        "settings": settings,
        "pictures": pictures,
        "captions": captions,
        "code": sources.TRAINER,
    }
    if training.style_on_content and half == "style":
        key["on"] = f"the content LoRA of {pair.subject}"
    kept = cache.cached("loras", key, make)
    return LoRA(half, {name: LoraFactors(**factors) for name, factors in kept.items()})


def alone(bench: Bench, half: str, lora: LoRA) -> State:
    """Draw a LoRA alone with other words than those of its training, and measure."""
    parts, asked = bench.task.parts, ALONE[half]

    def make() -> State:
        model = parts.with_lora(kohya_tensors(lora.modules))
        return bench.measured(parts.draw(model, asked, PICTURES, SEED))

    given = bench.inputs("alone")
    key = {"pair": given["pair"], "code": given["code"], "lora": given[half], "asked": asked}
    return cache.cached("made", key, make)


def write(found: Mapping[str, tuple[Sequence[Pair], list[dict[str, State]]]]) -> None:
    """Write a table and the figures of each choice of pairs and trainings, and say the tables."""
    figures: dict[str, dict[str, object]] = {}
    for mark, (pairs, cells) in found.items():
        text = table.markdown(rows(cells), COLUMNS, "LoRAs")
        say(f"\n{mark}\n{text}")
        document.put(mark, text)
        figures[mark] = {
            pair.name: {
                name: {way: document.rounded(cell, fits=False) for way, cell in drawn.items()}
                for name, drawn in of_pair.items()
            }
            for pair, of_pair in zip(pairs, cells, strict=True)
        }
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n")


def rows(found: Sequence[Mapping[str, State]]) -> dict[str, table.Row]:
    """Compute the table: each way to train, means over the pairs."""
    made: dict[str, table.Row] = {}
    for name in found[0]:
        row: dict[str, table.Value] = {
            "content": table.mean_of([cells[name]["content"] for cells in found], "subject"),
            "style": table.mean_of([cells[name]["style"] for cells in found], "style"),
        }
        for way in DRAWN:
            ours, first = ([cells[n][way] for cells in found] for n in (name, AS_IS))
            row |= {
                way: mean(map(table.both, ours)),
                f"{way}, difference": None if name == AS_IS else _difference(ours, first),
                f"{way}, right": table.mean_of(ours, "both right"),
            }
        made[name] = row
    return made


def _difference(ours: Sequence[State], first: Sequence[State]) -> str:
    """Compare cells of the same pairs; one pair has no interval."""
    if len(ours) == 1:
        return f"{table.both(ours[0]) - table.both(first[0]):+.2f}"
    return str(table.difference(ours, first))
