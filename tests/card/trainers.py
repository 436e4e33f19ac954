"""The table of seconds, bytes and units of every trainer on the device."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import median

import comfy.model_management
import torch

from bench.engine.models import random_prompt, unet_config
from bench.table import Table
from sandbox.commands import say
from ziplora_core.comfy_adapter.model import conditioning as cond
from ziplora_core.comfy_adapter.model.training_model import training_model

from .meter import GIB, synchronise, take
from .models import CardModels
from .runs import RUNS

STATES = 25
"""Calibration samples of the closed form per prompt, the node's default."""
GRACE = 30.0
"""Seconds that a run which began in time may take longer."""
COLUMNS = {"seconds": ".2f", "units": ".1f", "peak GiB": ".2f"}


def trainers_table(
    models: CardModels, steps: int, until: float, notes: Sequence[str]
) -> tuple[Table, bool]:
    """Run every trainer in both memory modes; return the table, and whether one failed.

    Running out of time or of memory is no failure.

    Args:
        models: models and pictures.
        steps: steps of each training.
        until: time, by `time.monotonic`, after which no run begins.
        notes: more lines below the table.
    """
    unit = _unit(models)
    rows: dict[str, dict[str, float | None]] = {}
    faults: list[str] = []
    failed = 0
    for memory in ("low", "fast"):  # where time is short, the modes of smaller cards count more
        for name in RUNS:
            row = f"{name}, {memory}"
            if time.monotonic() > until:
                rows[row] = dict.fromkeys(COLUMNS)
                continue
            amount = STATES if "closed form" in name else steps
            taken = take(models, name, memory, amount, until=until + GRACE)
            if taken.fault:
                faults.append(f"{row} stopped: {taken.fault}")
                failed += not taken.expected
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
    side = 8 * models.scale.latent
    title = f"Every trainer, {models.scale.name} SDXL at {side} × {side}, rank {models.scale.rank}"
    return Table(title, COLUMNS, rows, [*about, *faults, *notes]), failed > 0


@torch.no_grad()
def _unit(models: CardModels) -> float:
    """Return the seconds of half a forward pass of the base UNet at batch 2."""
    side = models.scale.latent
    with torch.inference_mode(False), training_model(models.model, {}, backward=False) as opened:
        x = torch.randn(2, 4, side, side, generator=torch.Generator().manual_seed(0))
        x = x.to(opened.device)
        prompt = cond.prepare(opened.model, random_prompt(unet_config(models.scale), 0), x[:1])
        sigma = torch.ones(2, device=opened.device)
        times = []
        for _ in range(5):
            begun = time.perf_counter()
            opened.denoised(x, sigma, [prompt, prompt], None)
            synchronise(opened.device)
            times.append(time.perf_counter() - begun)
    comfy.model_management.soft_empty_cache()
    return median(times[1:]) / 2
