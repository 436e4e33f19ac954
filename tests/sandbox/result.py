"""The result of one prompt."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Json = Any


@dataclass
class Result:
    """The outcome of one prompt.

    Args:
        status: `success`, `error` or `interrupted`.
        outputs: the outputs shown by the nodes, by node id: the history's `outputs`.
        events: the JSON messages of this run in order: `{"type": …, "data": …}`.
        previews: the binary messages: event type (4 bytes, big endian), then the payload.
        error: the data of `execution_error`: `exception_message`, `traceback`, `node_id`, …
    """

    prompt_id: str
    status: str = ""
    outputs: dict[str, Json] = field(default_factory=dict)
    events: list[Json] = field(default_factory=list)
    previews: list[bytes] = field(default_factory=list)
    error: dict[str, Json] | None = None
    seconds: float = 0.0

    @property
    def executed(self) -> list[str]:
        """The ids of the nodes that ran, in order; cached nodes are left out."""
        nodes = [e["data"]["node"] for e in self.events if e["type"] == "executing"]
        return [node for node in nodes if node is not None]
