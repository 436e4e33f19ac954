"""The short form of `make reliability`: every promise holds in a few tries.

That of the versions is a test of this suite anyway.
"""

from __future__ import annotations

import pytest

from reliability import parts


@pytest.mark.parametrize("name", [name for name in parts.known() if name != "versions"])
def test_every_promise_of_the_part_holds(name: str) -> None:
    found = parts.measure(parts.known()[name], short=True).promises
    assert found and all(promise.tried > 0 for promise in found)
    assert [(p.text, p.broken) for p in found if p.held < p.tried or p.broken] == []
