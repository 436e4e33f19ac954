"""Counting of the pretend device's copies and waits."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

COPIES = ("to_device", "to_device_async", "to_host", "waits")


def pretend() -> Any:
    """Return the device's counters and switches."""
    import torch_npu

    return torch_npu.device


@dataclass
class Counts:
    """The numbers of copies and waits by kind, and the places in the code that caused them."""

    by_kind: dict[str, int] = field(default_factory=dict)
    places: Counter[str] = field(default_factory=Counter)

    @property
    def waits(self) -> int:
        """The number of times the CPU waited for the device; every synchronous copy waits."""
        return sum(self.by_kind[kind] for kind in COPIES if kind != "to_device_async")


@contextmanager
def counted() -> Iterator[Counts]:
    """Count copies and waits inside a `with`."""
    device, counts = pretend(), Counts()
    before = device.counts()

    def told(kind: str) -> None:
        frames = [f for f in traceback.extract_stack() if "ziplora_core" in f.filename]
        last = frames[-1] if frames else traceback.extract_stack()[-3]
        counts.places[f"{kind} {Path(last.filename).name}:{last.lineno}"] += 1

    device.on_wait(told)
    try:
        yield counts
    finally:
        device.on_wait(None)
        after = device.counts()
        counts.by_kind = {kind: after[kind] - before[kind] for kind in COPIES}
