"""The cost of merging two LoRAs of the real SDXL without training, and of saving the result."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import comfy.model_base
import torch
from torch import nn

from sandbox import tiny
from sandbox.paths import SANDBOX
from ziplora_core.comfy_adapter.model.pair_on_model import merge_pair
from ziplora_core.files.merge_file import merged_metadata
from ziplora_core.files.metadata import lora_metadata
from ziplora_core.files.writer import write_lora
from ziplora_core.lora.blocks import PRESETS
from ziplora_core.lora.factors import LoRA
from ziplora_core.lora.merged import MergedLoRA
from ziplora_core.lora.pair import LoRAPair, ModulePair
from ziplora_core.merging import CALIBRATED, METHODS, MergeSettings
from ziplora_core.merging.rank_moments import CONTENT, STYLE, RankCalibration, RankMoments

from ..clock import seconds
from ..table import Table
from .memory import MIB, PeakResident
from .models import TOKENS, random_pairs

RANK = 64
SAVES = 3
Row = dict[str, float | None]


def tables(rank: int = RANK, methods: Sequence[str] = tuple(METHODS)) -> list[Table]:
    """Measure every method on the 560 attention linears of SDXL, and saving a merge."""
    sdxl = tiny.sdxl_meta()
    pairs = random_pairs(sdxl, tiny.attention_linears(sdxl), rank)
    about = f"{len(pairs)} modules of SDXL, rank {rank} + {rank}"
    merges = Table(
        f"Merging without training, {about}",
        {"seconds": ".1f", "growth MiB": ",.0f"},
        {method: merging(method, sdxl, pairs) for method in methods},
        [
            "on the CPU, once each: what MergeLoRAs does, its report and the joined LoRA included",
            "growth: of the whole process, beyond the two LoRAs it reads",
            f"{', '.join(sorted(CALIBRATED))}: without the UNet's evaluations that it looks at",
        ],
    )
    return [merges, saving(pairs, about)]


def merging(method: str, sdxl: comfy.model_base.BaseModel, pairs: Mapping[str, ModulePair]) -> Row:
    """Merge once."""
    halves = ({name: p.factors[i] for name, p in pairs.items()} for i in range(2))
    pair = LoRAPair(*(LoRA(name, h) for name, h in zip(("content", "style"), halves, strict=True)))
    moments = random_moments(pairs) if method in CALIBRATED else {}
    settings = MergeSettings(blocks=PRESETS["b_lora"], moments=moments)
    with PeakResident() as memory:
        spent = seconds(lambda: merge_pair(sdxl, pair, method, settings)[0].modules())
    return {"seconds": spent, "growth MiB": memory.bytes / MIB}


def random_moments(pairs: Mapping[str, ModulePair]) -> Mapping[str, RankMoments]:
    """Compute the moments that a calibrated method needs from random tokens."""
    calibration, rng = RankCalibration(pairs), torch.Generator().manual_seed(2)
    linear = nn.Linear(1, 1)
    for calibration.concept in (CONTENT, STYLE):
        for name, pair in pairs.items():
            x = torch.randn(1, TOKENS, pair.one.down.shape[1], generator=rng)
            calibration.record(name, x, x, linear)
    return calibration.moments


def saving(pairs: Mapping[str, ModulePair], about: str) -> Table:
    """Save the exact merge as SaveMergedLoRA does, in turns with writing the same bytes."""
    rng = torch.Generator().manual_seed(3)
    columns = {
        name: 1 + 0.1 * torch.randn(2, p.one.down.shape[1], generator=rng)
        for name, p in pairs.items()
    }
    merged = MergedLoRA(pairs, columns)
    ours, raw, growth, size = [], [], 0, 0
    with tempfile.TemporaryDirectory(dir=SANDBOX) as folder:
        for turn in range(SAVES):
            path = Path(folder) / f"{turn}.safetensors"
            with PeakResident() as memory:
                ours.append(seconds(lambda path=path: save(merged, path)))
            data, growth = path.read_bytes(), max(growth, memory.bytes)
            path.unlink()
            raw.append(seconds(lambda path=path, data=data: write_raw(path, data)))
            path.unlink()
            size = len(data)
    beyond = median(mine - bare for mine, bare in zip(ours, raw, strict=True))
    rows: dict[str, Row] = {
        "SaveMergedLoRA": {"seconds": median(ours), "growth MiB": growth / MIB},
        "the same bytes, written and synced": {"seconds": median(raw), "growth MiB": None},
        "beyond the disk": {"seconds": beyond, "growth MiB": None},
    }
    return Table(
        f"Saving the exact merge, {about}, fp16",
        {"seconds": ".2f", "growth MiB": ",.0f"},
        rows,
        [
            f"{size / MIB:,.0f} MiB; medians of {SAVES}, in turns",
            "joined, hashed, written, synced, read back and compared",
        ],
        {"file bytes": size},
    )


def save(merged: MergedLoRA, path: Path) -> None:
    """Merge and write, with all metadata."""
    modules = merged.modules()
    metadata = lora_metadata(
        modules, title=path.stem, description="a benchmark's", extra=merged_metadata(merged)
    )
    write_lora(path, modules, metadata, "fp16")


def write_raw(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
