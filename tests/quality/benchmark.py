"""All methods on one pair, in a process of its own."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field

from sandbox.commands import say
from sandbox.paths import ROOT, use_comfyui

use_comfyui()
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))

import torch  # noqa: E402

from miniworld.parts import load_parts  # noqa: E402
from miniworld.probe_files import load_probes  # noqa: E402
from ziplora_core.files.writer import kohya_tensors  # noqa: E402

from .experiment import Bench, Outcome, make_bench  # noqa: E402
from .methods import TABLE  # noqa: E402
from .sheet import Row  # noqa: E402
from .subjects import CONTEXTS, JOINT_PROMPT, PAIRS, Pair  # noqa: E402

SEED = 1
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
STRENGTH_METHOD = "ZipLoRA"


@dataclass
class PairResult:
    """The results for one pair.

    Args:
        real: alignments of real pictures among themselves.
        figures, rows: by method; what was measured and drawn.
        strengths: the joint prompt with the style at 0 … 1.
    """

    pair: Pair
    real: Mapping[str, float]
    figures: dict[str, dict[str, float | None]] = field(default_factory=dict)
    rows: dict[str, Row] = field(default_factory=dict)
    strengths: Row = field(default_factory=dict)


def run_pair(number: int) -> PairResult:
    """Train a pair's LoRAs and run every method on them."""
    torch.set_num_threads(1)
    pair = PAIRS[number]
    say(f"{pair.name}: training its LoRAs")
    bench = make_bench(load_parts(), pair, load_probes())
    real = {"subject": bench.refs.content.real, "style": bench.refs.style.real}
    result = PairResult(pair, real)
    result.rows["training pictures"] = {
        "content prompt": pair.content_pictures(),
        "style prompt": pair.style_pictures(),
    }
    for name, method in TABLE.items():
        outcome = bench.run(method, SEED)
        result.figures[name] = outcome.figures.as_dict()
        result.rows[name] = _row(outcome)
        if name == STRENGTH_METHOD:
            result.strengths = style_strengths(bench, outcome)
        figures = {k: v and round(v, 4) for k, v in result.figures[name].items()}
        say(f"{pair.name}, {name}: {json.dumps(figures)}")
    return result


def style_strengths(bench: Bench, outcome: Outcome) -> Row:
    """Draw the joint prompt with the style at 0 … 1 (the paper's figure of style control)."""
    assert outcome.merge.merged is not None
    parts, row = bench.task.parts, {}
    for strength in STRENGTHS:
        modules = outcome.merge.merged.modules(1.0, strength)
        model = parts.with_lora(kohya_tensors(modules))
        row[f"style {strength:g}"] = parts.draw(model, JOINT_PROMPT, 2, SEED)
    return row


def _row(outcome: Outcome) -> Row:
    drawn = outcome.pictures
    return {
        "content prompt": drawn["content"],
        "style prompt": drawn["style"],
        "joint prompt": drawn["joint"],
        **{name: drawn[name] for name in CONTEXTS},
    }
