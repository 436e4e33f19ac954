"""The short form of `make reliability`: every promise holds in a few tries."""

from __future__ import annotations

import pytest

from reliability import parts


@pytest.mark.parametrize("name", parts.known())
def test_every_promise_of_the_part_holds(name: str) -> None:
    found = parts.measure(parts.known()[name], short=True).promises
    assert found and all(promise.tried > 0 for promise in found)
    assert [(p.text, p.broken) for p in found if p.held < p.tried or p.broken] == []
