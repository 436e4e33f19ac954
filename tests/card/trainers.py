"""Seconds, bytes and units of every trainer on the device."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median

import comfy.model_management
import torch

from bench.engine.models import random_prompt, unet_config
from bench.table import Table
from sandbox.commands import say
from ziplora_core.comfy_adapter import conditioning as cond
from ziplora_core.comfy_adapter.training_model import training_model

from .meter import GIB, synchronise, take
from .runs import RUNS
from .studio import Studio

STATES = 25
"""That the closed form looks at for each prompt: the node's default."""
COLUMNS = {"seconds": ".2f", "units": ".1f", "peak GiB": ".2f"}


def trainers_table(studio: Studio, steps: int, until: float, notes: Sequence[str]) -> Table:
    """Run every trainer in both memory modes.

    Args:
        studio: models and pictures.
        steps: of each training.
        until: the time, by `time.monotonic`, after which none begins.
        notes: more lines below the table.
    """
    unit = _unit(studio)
    rows: dict[str, dict[str, float | None]] = {}
    faults: list[str] = []
    for name in RUNS:
        for memory in ("low", "fast"):
            row = f"{name}, {memory}"
            if time.monotonic() > until:
                rows[row] = dict.fromkeys(COLUMNS)
                continue
            taken = take(studio, name, memory, STATES if "closed form" in name else steps)
            if taken.fault:
                faults.append(f"{row} stopped: {taken.fault}")
            rows[row] = {
                "seconds": None if taken.fault else taken.seconds,
                "units": taken.seconds / unit if taken.seconds and not taken.fault else None,
                "peak GiB": None if taken.peak is None else taken.peak / GIB,
            }
            say(f"{row}: {rows[row]}")
    about = [
        f"a unit is half the time of the base UNet's forward at batch 2: {unit:.4f} s",
        f"a step's median of {steps} without the first; of the closed form the whole node with "
        f"{STATES} states of each prompt and the pictures that it draws",
    ]
    side = 8 * studio.scale.latent
    title = f"Every trainer, {studio.scale.name} SDXL at {side} × {side}, rank {studio.scale.rank}"
    return Table(title, COLUMNS, rows, [*about, *faults, *notes])


@torch.no_grad()
def _unit(studio: Studio) -> float:
    """Time half a forward pass of the base UNet at batch 2."""
    side = studio.scale.latent
    with torch.inference_mode(False), training_model(studio.model, {}, backward=False) as opened:
        x = torch.randn(2, 4, side, side, generator=torch.Generator().manual_seed(0))
        x = x.to(opened.device)
        prompt = cond.prepare(opened.model, random_prompt(unet_config(studio.scale), 0), x[:1])
        sigma = torch.ones(2, device=opened.device)
        times = []
        for _ in range(5):
            begun = time.perf_counter()
            opened.denoised(x, sigma, [prompt, prompt], None)
            synchronise(opened.device)
            times.append(time.perf_counter() - begun)
    comfy.model_management.soft_empty_cache()
    return median(times[1:]) / 2
