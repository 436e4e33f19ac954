"""Which of several like forms of a test `make test` runs; the others are for `make thorough`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeVar
from zlib import crc32

import pytest

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


def leave_every(item: pytest.Item, parameter: str, every: int) -> None:
    """Leave a test of n or more values of a parameter with every n-th of them.

    Args:
        item: one of the test's forms; it is marked if it is not one of these.
        parameter: name of the parameter, which the test has by itself in `parametrize`.
        every: n.
    """
    for mark in item.iter_markers("parametrize"):
        names, values = mark.args[:2]
        if names != parameter or len(values) < every:
            continue
        forms = list(_plain(values))
        if item.callspec.params[parameter] not in turn(item.name, forms, every):  # pyright: ignore
            item.add_marker("thorough")


def _plain(values: Iterable[object]) -> Iterable[object]:
    """Take values out of `pytest.param`."""
    return (getattr(value, "values", [value])[0] for value in values)
