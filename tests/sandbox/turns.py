"""Which of several like forms of a test `make test` runs; the others are for `make thorough`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar
from zlib import crc32

Form = TypeVar("Form")


def turn(test: str, forms: Sequence[Form], every: int) -> list[Form]:
    """Return every n-th form, from one on that follows from the test's name alone.

    Args:
        test: the name of the test, with or without its parameters.
        forms: its forms, in an order that stays.
        every: n.
    """
    first = crc32(test.partition("[")[0].encode()) % every
    return [*forms[first::every]]
