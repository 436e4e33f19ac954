"""The result of one promise, a row of the tables in docs/RELIABILITY.md."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Promise:
    """A promise, how often it was tried, and how often it held.

    Args:
        text: the promise, a sentence about what does not happen to a user.
        tried: number of tries: faults, inputs, runs, versions.
        held: number of tries in which it held.
        figures: what was measured beside, as text: the largest, the slowest, the bytes.
        broken: a line for each try in which it did not hold.
    """

    text: str
    tried: int
    held: int
    figures: str = ""
    broken: list[str] = field(default_factory=list)
