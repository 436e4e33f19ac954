"""Inputs that atheris chooses by the code they reach: `python -m reliability.fuzzing.guided`.

libFuzzer ends its process when it is done, so this is one, which writes its counts as it goes.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[3]))

import atheris  # pyright: ignore[reportMissingImports]

with atheris.instrument_imports(include=["ziplora_core.files", "ziplora_core.training"]):
    import torch

    from .loop import Watch, written
    from .mutation import damage
    from .targets import TARGETS


def main(name: str, inputs: int, seed: int, seconds: float, result: Path) -> None:
    """Read inputs until there are enough, or the time is over.

    Args:
        name: one of TARGETS.
        inputs: how many.
        seed: of all random choices.
        seconds: the time.
        result: the file for the counts.
    """
    torch.set_num_threads(1)
    seeds, end = TARGETS[name].seeds(), time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as corpus, tempfile.TemporaryDirectory() as folder:
        for number, data in enumerate(seeds):
            (Path(corpus) / str(number)).write_bytes(data)
        watch = Watch(name, Path(folder))

        def read(data: bytes) -> None:
            watch.read(data)
            count = watch.counts.inputs
            if count % 500 == 0 or count >= inputs or time.monotonic() > end:
                result.write_text(written(watch.counts))

        def mutate(data: bytes, longest: int, chosen: int) -> bytes:
            """Damage an input as `loop` does, or as libFuzzer does by its own rules."""
            draw = random.Random(chosen)
            if draw.random() < 0.3:
                return atheris.Mutate(data, longest)
            return damage(data, seeds, draw)[:longest]

        options = [f"-runs={inputs}", f"-seed={seed}", f"-max_total_time={int(seconds)}"]
        quiet = ["-verbosity=0", "-rss_limit_mb=8000", "-max_len=65536", corpus]
        atheris.Setup([sys.argv[0], *options, *quiet], read, custom_mutator=mutate)
        atheris.Fuzz()


if __name__ == "__main__":
    target, count, start, limit, file = sys.argv[1:]
    main(target, int(count), int(start), float(limit), Path(file))
