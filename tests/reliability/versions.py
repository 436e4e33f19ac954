"""The pack on other versions: the functions of ComfyUI that it relies on, and the matrix."""

from __future__ import annotations

import re
import subprocess
from xml.etree import ElementTree

from sandbox.matrix import ROWS, Outcome, latest
from sandbox.paths import ROOT, SANDBOX

from .promise import Promise

CANARY = "tests/comfy/test_comfyui_api.py", "tests/comfy/test_requirement.py"
PYTEST = SANDBOX / "venv" / "bin" / "pytest"


def measure(short: bool) -> list[Promise]:
    """Look for what the pack needs of this ComfyUI; unless `short`, gather the matrix too."""
    return [canary()] if short else [canary(), *matrix()]


def canary() -> Promise:
    """Run the tests that name each function of ComfyUI, in a process of their own."""
    report = SANDBOX / "reliability" / "canary.xml"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    command = [str(PYTEST), "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *CANARY]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    cases = list(ElementTree.parse(report).iter("testcase")) if report.is_file() else []
    broken = [str(fault.get("message")) for case in cases for fault in case.findall("failure")]
    broken += [str(fault.get("message")) for case in cases for fault in case.findall("error")]
    if not cases:
        broken = ["the tests of ComfyUI's functions did not run"]
    return Promise(
        "Each function of ComfyUI that the pack calls is there, or is named in a sentence",
        tried=max(len(cases), 1),
        held=len(cases) - len(broken) if cases else 0,
        broken=[re.sub(r"\s+", " ", line)[:300] for line in broken],
    )


def matrix() -> list[Promise]:
    """Gather the rows of `make matrix`, those that have not run yet by running them."""
    outcomes = [latest(row) for row in ROWS]
    tested = [outcome for outcome in outcomes if not outcome.row.refused]
    refused = [outcome for outcome in outcomes if outcome.row.refused]
    return [
        _promise("All tests pass on every version of ComfyUI, Python and the frontend", tested),
        _promise("A ComfyUI that is too old is refused with a sentence", refused),
    ]


def _promise(text: str, outcomes: list[Outcome]) -> Promise:
    return Promise(
        text,
        tried=len(outcomes),
        held=sum(outcome.holds for outcome in outcomes),
        figures="; ".join(f"{o.row.name} {o.passed} passed" for o in outcomes),
        broken=[outcome.line() for outcome in outcomes if not outcome.holds],
    )
