"""The pack on other versions of ComfyUI, of Python and of the frontend: `make matrix`.

Each row has a sandbox of its own in `.sandbox/matrix/`, where the results are kept. A row with
another ComfyUI or frontend lies over this sandbox's packages; one with another Python has its own
torch, and borrows the CUDA libraries that torch loads, so that it takes 2 GB instead of 6.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from .commands import SetupError, pip, run, say
from .link import link_base, link_for_type_checker
from .paths import COMFYUI, PYTHON, ROOT, SANDBOX, VENV
from .setup import INSTALL, packages_of
from .source import SOURCES, TESTED, get_comfyui

MATRIX = SANDBOX / "matrix"
FRONTEND = "comfyui-frontend-package"
LENT = ("nvidia", "nvidia_*.dist-info", "cuda_toolkit-*.dist-info")
"""What is the same for every Python: the CUDA libraries, about 2.7 GB."""
IN_COMFYUI = ("tests/comfy", "tests/server", "tests/browser")
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


@dataclass(frozen=True)
class Row:
    """What differs from the sandbox that `make test` uses, and the tests that it is to pass.

    Args:
        comfyui: the version of ComfyUI.
        python: the version of Python, e.g. `3.12`; empty for this sandbox's.
        frontend: the version of the frontend, `newest` for that of the package index; empty for
            the one that ComfyUI asks for.
        leaving_out: options that leave out some of them.
        refused: whether the pack says, instead of passing tests, that this ComfyUI is too old.
    """

    comfyui: str = TESTED.comfyui
    python: str = ""
    frontend: str = ""
    tests: tuple[str, ...] = IN_COMFYUI
    leaving_out: tuple[str, ...] = ()
    refused: bool = False

    @property
    def name(self) -> str:
        if self.python:
            return f"python-{self.python}"
        return f"frontend-{self.frontend}" if self.frontend else f"comfyui-{self.comfyui}"

    @property
    def sandbox(self) -> Path:
        return MATRIX / self.name


ROWS = (
    *(Row(comfyui=v, leaving_out=OF_THIS_FRONTEND) for v in ("0.24.0", "0.27.0")),
    Row(comfyui="0.30.0"),
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
    """Set up a row's sandbox, run its tests, or `tests`, and count what they say."""
    if row.refused:
        return see_refusal(row)
    try:
        environment = prepare(row)
    except SetupError as error:
        return Outcome(row, names=(str(error).splitlines()[0],))
    report = row.sandbox / "results.xml"
    report.unlink(missing_ok=True)
    command = [row.sandbox / "venv" / "bin" / "pytest", "-q", "-p", "no:cacheprovider", *BESIDE]
    begun = time.monotonic()
    with (row.sandbox / "tests.log").open("wb") as log:
        subprocess.run(
            [*map(str, command), f"--junitxml={report}", *row.leaving_out, *(tests or row.tests)],
            cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    return read_results(row, report, time.monotonic() - begun)


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


def read_results(row: Row, report: Path, seconds: float) -> Outcome:
    """Count the tests in pytest's report."""
    if not report.is_file():
        return Outcome(row, names=(f"pytest did not end: {row.sandbox / 'tests.log'}",))
    cases = list(ElementTree.parse(report).iter("testcase"))
    bad = [c for c in cases if c.find("failure") is not None or c.find("error") is not None]
    skipped = sum(c.find("skipped") is not None for c in cases)
    names = tuple(f"{c.get('classname')}.{c.get('name')}" for c in bad[:MOST_NAMES])
    return Outcome(row, len(cases) - len(bad) - skipped, len(bad), skipped, names, seconds)


def prepare(row: Row) -> dict[str, str]:
    """Bring a row's sandbox up to date; return the environment of its tests.

    Raises:
        SetupError: a package cannot be had, or there is no such Python here.
    """
    row.sandbox.mkdir(parents=True, exist_ok=True)
    usual = {k: v for k, v in os.environ.items() if not k.startswith("COMFYUI_")}
    environment = {**usual, "ZIPLORA_SANDBOX": str(row.sandbox), "DEVICE": "cpu"}
    if row.python:
        python = find_python(row.python)
        lend_libraries(python, row.sandbox / "venv")
        _link(row.sandbox / "downloads", SANDBOX / "downloads")
    else:
        python = sys.executable
        environment |= {"COMFYUI_PATH": str(tree(row.comfyui)), "COMFYUI_PYTHON": str(PYTHON)}
    command = [python, "-m", "sandbox.setup"]
    run(command, doing=f"setting up {row.name}", cwd=ROOT / "tests", environment=environment)
    link_for_type_checker()  # the set-up has made it point to the row's ComfyUI
    own = row.sandbox / "venv" / "bin" / "python"
    if not row.python:
        pip(own, *INSTALL, *packages_of(tree(row.comfyui)), doing=f"packages of {row.name}")
    if row.frontend:
        wanted = FRONTEND if row.frontend == "newest" else f"{FRONTEND}=={row.frontend}"
        pip(own, *INSTALL, "--upgrade", "--no-deps", wanted, doing=f"installing {wanted}")
    return environment


def tree(version: str) -> Path:
    """Return the folder of a version of ComfyUI; get it if it is missing."""
    if version == TESTED.comfyui:
        return COMFYUI
    folder = MATRIX / "ComfyUI" / version
    folder.parent.mkdir(parents=True, exist_ok=True)
    get_comfyui(PYTHON, SANDBOX / "downloads", folder, SOURCES[version])
    return folder


def find_python(version: str) -> str:
    """Find an interpreter: a program of that name that runs, or one of pyenv's.

    Raises:
        SetupError: there is none.
    """
    pyenv = sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"))
    for program in (shutil.which(f"python{version}"), *map(str, pyenv)):
        if program and re.match(rf"Python {version}\.", _says(program)):
            return program
    raise SetupError(f"Python {version}: none was found here.")


def lend_libraries(python: str, venv: Path) -> None:
    """Make an environment of another Python, with links to this sandbox's CUDA libraries."""
    if not (venv / "pyvenv.cfg").is_file():
        run([python, "-m", "venv", str(venv)], doing=f"making an environment with {python}")
    (own,) = VENV.glob("lib/python*/site-packages")
    (other,) = venv.glob("lib/python*/site-packages")
    for pattern in LENT:
        for folder in own.glob(pattern):
            _link(other / folder.name, folder)


def _says(program: str) -> str:
    found = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return found.stdout


def _link(link: Path, target: Path) -> None:
    if not link.exists():
        link.symlink_to(target)


def main() -> int:
    """Run the rows that are named, or all; say what each said; return 1 if one does not hold."""
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(prog="make matrix ARGS=…", description=__doc__)
    parser.add_argument("rows", nargs="*", help=", ".join(names), metavar="row")
    parser.add_argument("--tests", nargs="+", default=[], help="instead of the row's own")
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
