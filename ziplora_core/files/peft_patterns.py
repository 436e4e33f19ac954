"""Patterns of module names as PEFT has them, matched in time linear in the length of a name.

PEFT matches `(.*\\.)?(pattern)$` with Python's regular expressions, whose time can grow with any
power of the length, and without a bound for nested repetitions. So only names are read, with
wildcards that have one best match each.
"""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass

_CHARACTER = re.compile(r"[\w,:/ .-]|\\[^\w\s]|\\[dw]|\[[\w.-]+\]")
"""One character of a name: itself, `.` for any, `[…]` for one of some."""
_CHOICE = re.compile(r"(?<!\\)\(([^()]*)\)")
_ANY = ".*"
MOST = 64
"""Largest number of plain patterns that the groups of one pattern may stand for."""
LONGEST = 1000
"""Longest pattern and longest name, in letters; those of SDXL have about 100."""


@dataclass(frozen=True)
class _Piece:
    """The part of a pattern between two `.*`, which matches a fixed number of characters."""

    expression: re.Pattern[str]
    length: int

    def ends(self, name: str, start: int) -> int:
        """Return where this piece begins if a name ends in it, after `start`; -1 otherwise."""
        at = len(name) - self.length
        return at if at >= start and self.expression.match(name, at) else -1


@dataclass(frozen=True)
class NamePattern:
    """A pattern without groups, for the end of a name: pieces with anything in between.

    Args:
        pieces: the parts between two `.*`.
        whole: whether the pattern begins with `^`, so that it is for the whole name.
    """

    pieces: tuple[_Piece, ...]
    whole: bool

    def matches(self, name: str) -> bool:
        """Return whether `(.*\\.)?(pattern)$` matches: after a `.`, or from the beginning.

        The first match of each piece leaves the most room for the others, so no second is tried.
        """
        first, *others = self.pieces
        if not others:
            at = first.ends(name, 0)
            return at == 0 or (at > 0 and not self.whole and name[at - 1] == ".")
        found = self._begins(name)
        for piece in others[:-1]:
            found = found and piece.expression.search(name, found.end())
        return found is not None and others[-1].ends(name, found.end()) >= 0

    def _begins(self, name: str) -> re.Match[str] | None:
        """Match the first piece as early as possible."""
        starts = [0] if self.whole else [0, *(m.end() for m in re.finditer(r"\.", name))]
        tried = (self.pieces[0].expression.match(name, start) for start in starts)
        return next(filter(None, tried), None)


def name_patterns(text: str) -> tuple[NamePattern, ...] | None:
    """Read a pattern, with a group `(a|b)` as two; None when it has anything else.

    Args:
        text: the regular expression.
    """
    if len(text) > LONGEST:
        return None
    whole, text = text.startswith("^"), text.removeprefix("^").removesuffix("$")
    parts = [part.split("|") if i % 2 else [part] for i, part in enumerate(_CHOICE.split(text))]
    if math.prod(map(len, parts)) > MOST:
        return None
    alternatives = ["".join(choice).split(_ANY) for choice in itertools.product(*parts)]
    try:
        pieces = [tuple(map(_piece, several)) for several in alternatives]
    except re.error:
        return None
    return tuple(NamePattern(several, whole) for several in pieces)


def _piece(text: str) -> _Piece:
    """Compile a piece; raises re.error where it is not made of single characters."""
    characters = _CHARACTER.findall(text)
    if "".join(characters) != text:
        raise re.error("not a name")
    return _Piece(re.compile(text), len(characters))
