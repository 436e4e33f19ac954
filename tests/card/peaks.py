"""Peak memory of every trainer on SDXL's real shapes, without a card: `make peaks`.

It runs on the pretend device, whose allocator counts bytes. Tensors of more than 2^15 numbers are
allocated but not computed, so it takes only minutes; sizes do not depend on values. It writes
docs/BENCHMARKS.md.
"""

from __future__ import annotations

import os
import sys
import time

os.environ["DEVICE"] = "pretend"

from sandbox.paths import ROOT, use_comfyui

use_comfyui()
sys.path.append(str(ROOT))  # last: ComfyUI has a nodes.py, the pack a nodes folder

from comfy.cli_args import args as comfy_args  # noqa: E402

comfy_args.force_fp32 = False  # as on a card: weights in fp16, trained in bf16

import torch  # noqa: E402
import torch_npu  # noqa: E402

from bench.document import write  # noqa: E402
from bench.engine.models import SIZES  # noqa: E402
from bench.table import Table  # noqa: E402
from sandbox.commands import say  # noqa: E402
from ziplora_core.comfy_adapter.data import references  # noqa: E402
from ziplora_core.comfy_adapter.train import slider_effect  # noqa: E402

from .meter import GIB, take  # noqa: E402
from .models import CardModels, open_models  # noqa: E402
from .runs import RUNS  # noqa: E402

CARDS = (8, 10, 12)
"""Memory of cards in GiB."""
TAKEN = 1.0
"""GiB of a card that the screen, the browser and CUDA itself use."""
STEPS = 4
STATES = 2  # as many as fit in one batch
COMPUTED = 2**15
"""Size of the largest tensor that is computed."""
LEFT_OUT = ("Train Concept Slider, reused",)
"""Runs that are not tried on each card; this one needs as much as the exact one."""


def main() -> None:
    asked = sys.argv[1:] or ["peaks", "cards"]
    torch.set_num_threads(1)
    references.TRAJECTORY_STEPS = slider_effect.STEPS = 2  # any step has the peak
    models = open_models(SIZES["full"], drawn=False)
    torch_npu.device.only_shapes_above(COMPUTED)
    for section, table_of in (("peaks", peaks), ("cards", cards)):
        if section in asked:
            begun = time.monotonic()
            table = table_of(models)
            say(f"\n{table.text()}")
            write("card", section, [table], (time.monotonic() - begun) / 60)


def peaks(models: CardModels) -> Table:
    """Run every trainer in both memory modes, on a card that is large enough."""
    rows: dict[str, dict[str, float | None]] = {}
    for name in RUNS:
        for memory in ("low", "fast"):
            taken = take(models, name, memory, _amount(name))
            if memory == "fast":  # in a run of its own, as the counter keeps tensors alive
                taken.tflop = take(models, name, memory, _amount(name), count_flops=True).tflop
            rows[f"{name}, {memory}"] = {
                "peak GiB": taken.peak / GIB if taken.peak else None,
                "waits": taken.waits, "TFLOP": taken.tflop,
            }  # fmt: skip
            say(f"{name}, {memory}: {rows[f'{name}, {memory}']} {taken.fault}")
    return Table(
        "Peak memory on SDXL's shapes, weights and products in bf16, by the counting allocator",
        {"peak GiB": ".2f", "waits": ".0f", "TFLOP": ".1f"},
        rows,
        [
            "2.57 billion weights, 128 × 128 latents (sliders 64 × 64), rank 64 (+ 64; sliders 4)",
            "waits: of the CPU for the device in a step; TFLOP: of a step, by PyTorch's counter; "
            "with memory=low the blocks' forward pass is run once more",
            "a real card's allocator adds to that: blocks, fragments, workspaces",
        ],
    )


def cards(models: CardModels) -> Table:
    """Run every trainer with memory=auto on cards of limited memory."""
    rows: dict[str, dict[str, float | None]] = {}
    faults: list[str] = []
    for name in RUNS:
        if name in LEFT_OUT:
            continue
        row = rows.setdefault(name, {})
        for card in CARDS:
            room = card - TAKEN
            os.environ["PRETEND_GIB"] = str(room)  # the memory that the card reports
            torch_npu.device.set_limit(int(room * GIB))
            taken = take(models, name, "auto", _amount(name))
            row[f"{card} GiB"] = None if taken.fault else taken.peak and taken.peak / GIB
            if taken.fault:
                faults.append(f"{name} on {card} GiB: {taken.fault}")
            say(f"{name}, {card} GiB: {row[f'{card} GiB']} {taken.fault}")
    torch_npu.device.set_limit(2**62)
    return Table(
        f"Peak GiB with memory=auto on cards of which {TAKEN:g} GiB is taken",
        {f"{card} GiB": ".2f" for card in CARDS},
        rows,
        ["–: stopped with advice, as these say", *faults] if faults else [],
    )


def _amount(name: str) -> int:
    return STATES if "closed form" in name else STEPS


if __name__ == "__main__":
    main()
