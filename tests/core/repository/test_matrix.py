"""The matrix counts what pytest reports, and files that ran again replace what they said before."""

from __future__ import annotations

from pathlib import Path

from sandbox.matrix import ROWS, read_results, replace_results


def report(path: Path, seconds: float, **files: str) -> Path:
    """Write a report in pytest's form; a file's tests are `.` passed, `F` failed, `s` skipped."""
    inside = {".": "", "F": "<failure/>", "s": "<skipped/>"}
    cases = [
        f'<testcase classname="tests.{name}" name="test_{i}">{inside[said]}</testcase>'
        for name, tests in files.items()
        for i, said in enumerate(tests)
    ]
    suite = f'<testsuite time="{seconds}">{"".join(cases)}</testsuite>'
    path.write_text(f"<testsuites>{suite}</testsuites>")
    return path


def test_files_that_ran_again_replace_their_results(tmp_path: Path) -> None:
    kept = report(tmp_path / "kept.xml", 60, a="..F", b=".s", c="F")
    before = read_results(ROWS[0], kept)
    assert (before.passed, before.failed, before.skipped) == (3, 2, 1)
    assert before.names == ("tests.a.test_2", "tests.c.test_0") and not before.holds
    replace_results(kept, report(tmp_path / "newer.xml", 6, a="...", c=".."))
    after = read_results(ROWS[0], kept)
    assert (after.passed, after.failed, after.skipped, after.seconds) == (6, 0, 1, 66)
    assert after.holds


def test_results_of_some_files_are_not_those_of_a_row_that_never_ran(tmp_path: Path) -> None:
    kept = tmp_path / "kept.xml"
    replace_results(kept, report(tmp_path / "newer.xml", 6, a="..."))
    assert not kept.exists() and not read_results(ROWS[0], kept).holds
