"""The pack on other versions of ComfyUI, of Python and of the frontend: `make matrix`.

Each row has a sandbox of its own in `.sandbox/matrix/`, where the results of all its tests are kept
for the table that `make reliability ARGS=versions` writes. A row with another ComfyUI or frontend
lies over this sandbox's packages; one with another Python has its own torch, and borrows the CUDA
libraries that torch loads, so that it takes 2 GB instead of 6. What has neither is what `make test`
runs on.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from .commands import SetupError, say
from .link import link_base
from .matrix_row import Row, prepare, tree
from .paths import PYTHON, ROOT

WITH_PYTHON = (
    *("tests/core", "tests/comfy/data", "tests/comfy/train/test_finished.py"),
    *("tests/server/test_workflows.py", "tests/server/test_bad_input.py", "tests/server/files"),
)
"""What reaches most of the language and its library: every module, file format and workflow."""
OF_THIS_FRONTEND = tuple(
    f"--deselect=tests/browser/test_workflows.py::{name}"
    for name in (
        "test_nodes_of_a_workflow_do_not_cover_each_other_in_nodes_2",
        "test_workflow_dropped_and_saved_again_is_the_same",
    )
)
"""What holds from frontend 1.47 on: older ones draw notes and rows higher, and save the values of a
subgraph within it."""
BESIDE = ("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")
MOST_NAMES = 5

ROWS = (
    *(Row(comfyui=v, leaving_out=OF_THIS_FRONTEND) for v in ("0.24.0", "0.27.0")),
    *(Row(python=v, tests=WITH_PYTHON) for v in ("3.10", "3.12", "3.13")),
    Row(frontend="newest", tests=("tests/browser",)),
    *(Row(comfyui=version, tests=(), refused=True) for version in ("0.20.1", "0.18.2")),
)
SENTENCE = re.compile(r"ComfyUI: found version [\d.]+, expected [\d.]+ or later\. Update ComfyUI")


@dataclass(frozen=True)
class Outcome:
    """What a row's tests said.

    Args:
        passed, failed, skipped: numbers of tests.
        names: the first tests that failed; without any, why none ran.
        seconds: of the tests, without the set-up.
    """

    row: Row
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    names: tuple[str, ...] = ()
    seconds: float = 0.0

    @property
    def holds(self) -> bool:
        return self.passed > 0 and self.failed == 0

    def line(self) -> str:
        counted = f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"
        return " · ".join([f"{self.row.name}: {counted}, {self.seconds / 60:.0f} min", *self.names])


def try_row(row: Row, tests: tuple[str, ...] = ()) -> Outcome:
    """Set up a row's sandbox, run its tests, or `tests`, and count what they say.

    Whole files or folders among `tests` take the place of what they said before.
    """
    if row.refused:
        return see_refusal(row)
    try:
        environment = prepare(row)
    except SetupError as error:
        return Outcome(row, names=(str(error).splitlines()[0],))
    report = row.sandbox / "some.xml" if tests else row.results
    report.unlink(missing_ok=True)
    command = [row.sandbox / "venv" / "bin" / "pytest", "-q", "-p", "no:cacheprovider", *BESIDE]
    with (row.sandbox / "tests.log").open("wb") as log:
        subprocess.run(
            [*map(str, command), f"--junitxml={report}", *row.leaving_out, *(tests or row.tests)],
            cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    if tests and report.is_file() and all((ROOT / test).exists() for test in tests):
        replace_results(row.results, report)
    return read_results(row, report)


def see_refusal(row: Row) -> Outcome:
    """Start an old ComfyUI with the pack until its nodes are loaded; look for the sentence."""
    base = row.sandbox / "base"
    link_base(base)
    options = ("--quick-test-for-ci", "--cpu", "--base-directory", str(base))
    database = ("--database-url", "sqlite:///:memory:")
    begun = time.monotonic()
    try:
        command = [str(PYTHON), str(tree(row.comfyui) / "main.py"), *options, *database]
    except SetupError as error:
        return Outcome(row, names=(str(error).splitlines()[0],))
    said = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    ).stdout
    seconds = time.monotonic() - begun
    if SENTENCE.search(said):
        return Outcome(row, passed=1, seconds=seconds)
    return Outcome(row, failed=1, names=tuple(said.splitlines()[-3:]), seconds=seconds)


def read_results(row: Row, report: Path) -> Outcome:
    """Count the tests in pytest's report."""
    if not report.is_file():
        return Outcome(row, names=(f"pytest did not end: {row.sandbox / 'tests.log'}",))
    suites = ElementTree.parse(report)
    cases = list(suites.iter("testcase"))
    bad = [c for c in cases if c.find("failure") is not None or c.find("error") is not None]
    skipped = sum(c.find("skipped") is not None for c in cases)
    names = tuple(f"{c.get('classname')}.{c.get('name')}" for c in bad[:MOST_NAMES])
    seconds = sum(float(suite.get("time", 0)) for suite in suites.iter("testsuite"))
    return Outcome(row, len(cases) - len(bad) - skipped, len(bad), skipped, names, seconds)


def replace_results(kept: Path, report: Path) -> None:
    """Put a report's test files into the kept results, in the place of theirs."""
    if not kept.is_file():
        return
    results, newer = ElementTree.parse(kept), ElementTree.parse(report)
    files = {case.get("classname") for case in newer.iter("testcase")}
    for suite in results.iter("testsuite"):
        for case in suite.findall("testcase"):
            if case.get("classname") in files:
                suite.remove(case)
    results.getroot().extend(newer.iter("testsuite"))
    results.write(kept, encoding="utf-8")


def latest(row: Row) -> Outcome:
    """Return what all tests of a row said when they ran last; run them if they never did."""
    return read_results(row, row.results) if row.results.is_file() else try_row(row)


def main() -> int:
    """Run the rows that are named, or all; say what each said; return 1 if one does not hold."""
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(prog="make matrix ARGS=…", description=__doc__)
    parser.add_argument("rows", nargs="*", help=", ".join(names), metavar="row")
    parser.add_argument("--tests", nargs="+", default=[], help="instead of all of the row")
    options = parser.parse_args()
    if unknown := set(options.rows) - set(names):
        parser.error(f"found {', '.join(unknown)}, expected some of {', '.join(names)}")
    outcomes = []
    for row in ROWS:
        if row.name in (options.rows or names):
            outcomes.append(try_row(row, tuple(options.tests)))
            say(outcomes[-1].line())
    return 0 if all(outcome.holds for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
