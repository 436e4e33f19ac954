"""Compare every merge on the miniature SDXL: `make quality`. Writes docs/QUALITY.md's table."""

from __future__ import annotations

import json
import sys
import time

from sandbox.commands import say
from sandbox.paths import ROOT, use_comfyui

use_comfyui()
sys.path.append(str(ROOT))  # last: ComfyUI has a nodes.py, the pack a nodes folder

import torch  # noqa: E402

from miniworld.parts import load_parts  # noqa: E402
from miniworld.probe_files import load_probes  # noqa: E402

from .document import Results, write  # noqa: E402
from .experiment import make_bench  # noqa: E402
from .methods import TABLE  # noqa: E402
from .record import record, trimmed_run  # noqa: E402
from .subjects import PAIRS  # noqa: E402

SEED = 1


def main() -> int:
    """Run every method on every pair."""
    torch.set_num_threads(1)
    parts, probes = load_parts(), load_probes()
    results = Results()
    begun = time.monotonic()
    for number, pair in enumerate(PAIRS):
        say(f"{pair.name}: training its LoRAs")
        bench = make_bench(parts, pair, probes)
        for name, method in TABLE.items():
            outcome = bench.run(method, SEED)
            results.add(bench, name, outcome)
            shown = {
                key: value and round(value, 4) for key, value in outcome.figures.as_dict().items()
            }
            say(f"  {name}: {json.dumps(shown)}")
        if number == 0:
            say("  trimmed run, three seeds")
            record(trimmed_run(bench))
    write(results, time.monotonic() - begun)
    return 0


if __name__ == "__main__":
    sys.exit(main())
