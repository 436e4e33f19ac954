"""Measure merges and sliders on the miniature SDXL: `make quality`. Writes docs/QUALITY.md.

`make quality ARGS=sliders` runs a part: single (LoRAs alone), tuning, judge, sliders, unziplora; or
what runs by its name only: halves (of guidance), search (for strengths), made (LoRAs trained in
other ways), short (few methods on four tuning pairs, only said), trimmed (which a test repeats), or
test and halves_test, on the pairs that nothing may be chosen by. Run again to resume;
`.sandbox/quality` holds what is made.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

from sandbox.commands import say

from . import workers

workers.find_modules()

import torch  # noqa: E402

from miniworld.parts import load_parts  # noqa: E402

from . import document, halves_tables, judge_tables, record  # noqa: E402
from . import made as made_run  # noqa: E402
from .benchmark import BRIEF, FULL, Plan  # noqa: E402
from .benchmark import run as run_merges  # noqa: E402
from .halves import DRAWN, TESTED, Choices  # noqa: E402
from .halves import run as run_halves  # noqa: E402
from .judge import run as run_judge  # noqa: E402
from .search import run as run_search  # noqa: E402
from .search import write as write_search  # noqa: E402
from .single import write as write_single  # noqa: E402
from .sliders import document as slider_document  # noqa: E402
from .sliders import run as slider_run  # noqa: E402
from .subjects import TEST, TUNING, Pair  # noqa: E402
from .table import COLUMNS, markdown, rows  # noqa: E402
from .unziplora import document as unziplora_document  # noqa: E402
from .unziplora import run as unziplora_run  # noqa: E402


def main() -> int:
    """Run the parts that were asked for, or all; one thread a process."""
    asked = sys.argv[1:] or list(ALL)
    if unknown := set(asked) - set(PARTS):
        raise SystemExit(f"found {', '.join(unknown)}, expected some of {', '.join(PARTS)}")
    load_parts()  # writes the checkpoint, if need be, before two processes would
    return sum(PARTS[part]() for part in asked)


def tuning() -> int:
    """Run every method on the tuning pairs."""
    return _merges("tuning", FULL)


def test() -> int:
    """Run every method on the test pairs: once, at the end."""
    return _merges("test", Plan(TEST))


def short() -> int:
    """Run few methods on four tuning pairs, and say the table."""
    with workers.start() as pool:
        say(markdown(rows(run_merges(pool, BRIEF)), COLUMNS))
    return 0


def single() -> int:
    """Draw the base model's shapes, and each LoRA alone in three styles."""
    with workers.start() as pool:
        write_single(pool)
    return 0


def judge() -> int:
    """Hold the judge against the probes."""
    document.require(judge_tables.MARKS)
    with workers.start() as pool:
        whole = [run_judge(pool, pairs) for pairs in (TUNING, TEST)]
        judge_tables.write(*whole, run_judge(pool, TUNING[:4], "attention"))
    return 0


def halves() -> int:
    """Draw merges with the base model in guidance's unconditional half."""
    return _halves("halves", TUNING, DRAWN)


def halves_test() -> int:
    """Draw what the tuning pairs have chosen on the test pairs: once, at the end."""
    return _halves("halves_test", TEST, TESTED)


def made() -> int:
    """Merge LoRAs that were trained in other ways."""
    plan = {
        "made tries": (made_run.TRIED_ON, tuple(made_run.TRIED)),
        "made": (made_run.CHOSEN_ON, made_run.CHOSEN),
        "made test": (TEST, made_run.CHOSEN),
    }
    document.require(list(plan))
    with workers.start() as pool:
        found = {
            mark: (pairs, made_run.run(pool, pairs, names)) for mark, (pairs, names) in plan.items()
        }
    made_run.write(found)
    return 0


def search() -> int:
    """Hold Find the Merge against the probes."""
    document.require(["search"])
    with workers.start() as pool:
        run = {"tuning": run_search(pool, TUNING), "test": run_search(pool, TEST)}
    write_search(run)
    return 0


def _halves(kind: str, pairs: Sequence[Pair], choices: Choices) -> int:
    document.require(halves_tables.marks(kind))
    with workers.start() as pool:
        halves_tables.write(kind, pairs, run_halves(pool, pairs, choices), choices)
    return 0


def _merges(kind: str, plan: Plan) -> int:
    document.require([kind, f"{kind} conditions"])
    begun = time.monotonic()
    with workers.start() as pool:
        results = run_merges(pool, plan)
    document.write(results, kind, time.monotonic() - begun)
    return 0


def sliders() -> int:
    """Train and measure every slider."""
    with workers.start() as pool:
        slider_document.write(*slider_run.run(pool))
    return 0


def unziplora() -> int:
    """Take pictures apart in every way."""
    document.require(["unziplora tuning", "unziplora test"])
    with workers.start() as pool:
        unziplora_document.write(unziplora_run.run(pool))
    return 0


def trimmed() -> int:
    """Do the run that `make test` repeats, and record it; `ACCEPT=1` records what is worse, too."""
    torch.set_num_threads(record.THREADS)
    measured = record.trimmed_run(record.trimmed_bench())
    worse = record.keep(measured, accept=os.environ.get("ACCEPT") == "1")
    for line in worse:
        say(f"worse than recorded: {line}")
    return len(worse)


ALL = {
    "single": single,
    "tuning": tuning,
    "judge": judge,
    "sliders": sliders,
    "unziplora": unziplora,
}
PARTS = {
    **ALL,
    "halves": halves,
    "halves_test": halves_test,
    "made": made,
    "search": search,
    "trimmed": trimmed,
    "short": short,
    "test": test,
}


if __name__ == "__main__":
    sys.exit(main())
