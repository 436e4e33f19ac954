"""The short form of `make reliability`: every promise holds in a few tries.

Only of the parts that need no server: with the others it takes twice as long as it may. Tests of
this suite damage checkpoints, kill servers and fill disks, too, and look for ComfyUI's functions.
"""

from __future__ import annotations

import pytest

from reliability import parts


@pytest.mark.parametrize("name", ["faults", "fuzz", "others"])
def test_every_promise_of_the_part_holds(name: str) -> None:
    found = parts.measure(parts.known()[name], short=True).promises
    assert found and all(promise.tried > 0 for promise in found)
    assert [(p.text, p.broken) for p in found if p.held < p.tried or p.broken] == []
