"""Limits of what is kept on disk between trainings, and the removal of what is beyond them."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import problem
from ..files.atomic import unwritable, write_bytes
from .kept import STATES, Kept, in_use, look, remove
from .protection import attempt

_FILE = "limits.json"
_DAY, _GB = 24 * 3600, 10**9


@dataclass(frozen=True)
class Limits:
    """Limits of the folders of one kind; 0 for none.

    The state of a rank-64 LoRA on SDXL takes about 1 GB, so number and bytes agree; two weeks are
    a holiday. A set of 50 class pictures takes 13 MB.

    Args:
        number: most folders.
        days: most days since the last use.
        gigabytes: most bytes, in units of 10⁹.
    """

    number: int = 20
    days: float = 14.0
    gigabytes: float = 20.0

    @classmethod
    def read(cls, root: Path) -> Limits:
        """Return the limits of a folder, the defaults unless it says others."""
        try:
            said = json.loads((root / _FILE).read_bytes())
            limits = cls(int(said["number"]), float(said["days"]), float(said["gigabytes"]))
        except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return cls()
        valid = all(math.isfinite(v) and v >= 0 for v in asdict(limits).values())
        return limits if valid else cls()

    def write(self, root: Path) -> None:
        """Write the limits of a folder, for all who train there.

        Raises:
            ZipLoRAError: the disk is full or not writable.
        """
        data = json.dumps(asdict(self)).encode()
        try:
            root.mkdir(parents=True, exist_ok=True)
            write_bytes(root / _FILE, data, replace=True)
        except OSError as error:
            raise unwritable(root / _FILE, len(data), error) from error

    def __str__(self) -> str:
        parts = [
            f"{self.number}" if self.number else "",
            f"{self.days:g} days" if self.days else "",
            f"{self.gigabytes:g} GB" if self.gigabytes else "",
        ]
        return ", ".join(filter(None, parts)) or "none"


@contextmanager
def kept_within_limits(own: Path, what: str, notes: list[str]) -> Iterator[list[str]]:
    """Mark a folder as in use, and make room before and after; a failure of it goes no further.

    Args:
        own: the folder.
        what: its kind, as in "trainings".
        notes: see `attempt`.

    Yields:
        the list to which the report's lines are added at the end.
    """
    lines: list[str] = []

    def room() -> list[Kept]:
        return attempt("making room on the disk", lambda: make_room(own.parent, own), notes, [])

    removed = room()
    try:
        with in_use(own):
            yield lines
    finally:
        removed = [*removed, *room()]
        lines += attempt(
            "listing what is kept", lambda: kept_lines(what, own.parent, removed), notes, []
        )


def make_room(root: Path, own: Path | None = None) -> list[Kept]:
    """Remove what is beyond the limits of a folder; return what was removed.

    First all that was not used for too long, then one after the other in the order of STATES, the
    one that was used first first, until the rest is within the limits. What is in use stays.

    Args:
        root: the folder.
        own: one of the folders in it that stays, and counts even before it exists.
    """
    limits = Limits.read(root)
    kept = look(root)
    others = [k for k in kept if k.path != own and not k.in_use]
    others.sort(key=lambda k: (not _is_old(k, limits), STATES.index(k.state), k.used))
    count = len({k.path for k in kept} | ({own} if own else set()))
    size = sum(k.bytes for k in kept)
    removed = []
    for candidate in others:
        beyond = _is_beyond(count, limits.number) or _is_beyond(size, limits.gigabytes * _GB)
        if (beyond or _is_old(candidate, limits)) and remove(candidate):
            removed.append(candidate)
            count, size = count - 1, size - candidate.bytes
    return removed


def _is_beyond(value: float, limit: float) -> bool:
    return bool(limit) and value > limit


def _is_old(kept: Kept, limits: Limits) -> bool:
    return _is_beyond(time.time() - kept.used, limits.days * _DAY)


def kept_lines(what: str, root: Path, removed: Sequence[Kept]) -> list[str]:
    """Report what is kept, and what was removed to make room.

    Args:
        what: the kind, as in "trainings".
        root: the folder of all of them.
        removed: what was removed.
    """
    kept = look(root)
    lines = [
        f"{what} kept: {len(kept)}, {in_bytes(sum(k.bytes for k in kept))} "
        f"(limits: {Limits.read(root)}; see Past Trainings)"
    ]
    return [*lines, *removed_lines(removed)]


def removed_lines(removed: Sequence[Kept]) -> list[str]:
    """Report what was removed to make room, if anything."""
    if not removed:
        return []
    names = ", ".join(f"{k.path.name} ({k.state})" for k in removed)
    size = in_bytes(sum(k.bytes for k in removed))
    return [f"removed to stay within these limits: {names}, {size}"]


def in_bytes(size: int) -> str:
    """Write a number of bytes in the unit that suits it."""
    for unit, name in ((_GB, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size} bytes"


def refuse_negative(limits: Limits) -> None:
    """Refuse limits that nothing can be within.

    Raises:
        ZipLoRAError: a limit is negative or not finite.
    """
    for name, value in asdict(limits).items():
        if not (math.isfinite(value) and value >= 0):
            raise problem(
                name,
                found=f"{value:g}",
                expected="0 for no limit, or a positive number",
                advice="Change it.",
            )
