"""A simulated training at a given speed, to test a server under its messages."""

from __future__ import annotations

import sys
import time
from types import SimpleNamespace
from typing import Any

PACK = ".nodes.shared.progress"


class PacedTraining:
    """Reports `per_second` steps per second, as the pack's training nodes do."""

    CATEGORY = "sandbox"
    RETURN_TYPES = ()
    OUTPUT_NODE = True
    FUNCTION = "train"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802 (ComfyUI's name)
        numbers = {"steps": ("INT", {"default": 300}), "per_second": ("INT", {"default": 100})}
        return {"required": numbers, "hidden": {"unique_id": "UNIQUE_ID"}}

    def train(self, steps: int, per_second: int, unique_id: str) -> tuple[()]:
        (name,) = (n for n in sys.modules if n.endswith(f"ziplora{PACK}"))
        progress = sys.modules[name]
        record = sys.modules[
            name.replace(PACK, ".ziplora_core.training.interface")
        ].TrainingRecord()
        hidden = SimpleNamespace(unique_id=unique_id, extra_pnginfo=None, prompt=None)
        schema = SimpleNamespace(inputs=[])
        node = SimpleNamespace(hidden=hidden, define_schema=lambda: schema)
        started = time.perf_counter()
        with progress.followed(node, steps) as watch:
            for step in range(1, steps + 1):
                for term in ("loss", "content"):
                    record.history.setdefault(term, []).append(1 / step)
                record.step = step
                watch.on_step(record)
                time.sleep(max(0.0, started + step / per_second - time.perf_counter()))
        return ()
