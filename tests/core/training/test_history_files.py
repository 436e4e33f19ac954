"""A training's losses as CSV and as TensorBoard's events."""

from __future__ import annotations

from typing import Any

from ziplora_core.training.history_files import as_csv, as_events, crc32c

RECORD: dict[str, Any] = {
    "points": {"step": [1, 2, 300], "loss": [1.0, 0.5, 0.25], "content": [2.0, None, 0.125]},
    "errors": [], "started": 1000.0, "ended": 1300.0,
}  # fmt: skip
CLOSED_FORM = {**RECORD, "points": {"step": []}, "errors": [1.0, 0.25, None]}
EVENTS = bytes.fromhex(
    "1800000000000000a37f4b22090000000000408f401a0d627261696e2e4576656e743a3273ae6b56"
    "34000000000000005e33175c090000000000488f4010012a270a100a096c6f73732f6c6f737315000080"
    "3f0a130a0c6c6f73732f636f6e74656e741500000040bb44aae1"
    "1f00000000000000514b4418090000000000508f4010022a120a100a096c6f73732f6c6f737315000000"
    "3ff4e59358"
    "3500000000000000d6c55de609000000000050944010ac022a270a100a096c6f73732f6c6f7373150000"
    "803e0a130a0c6c6f73732f636f6e74656e74150000003e2fc17c3f"
)
"""RECORD as TensorBoard's own RecordWriter and messages (2.21.0) write it."""


def test_csv_has_a_column_for_each_term_and_nothing_where_there_is_no_number() -> None:
    assert as_csv(RECORD) == "step,loss,content\n1,1.0,2.0\n2,0.5,\n300,0.25,0.125\n"
    assert as_csv(CLOSED_FORM) == "pass,error\n0,1.0\n1,0.25\n2,\n"


def test_events_are_byte_for_byte_those_of_tensorboard() -> None:
    assert as_events(RECORD) == EVENTS
    assert len(as_events(CLOSED_FORM)) > len(as_events({**RECORD, "points": {"step": []}}))


def test_crc32c_of_the_standards_examples() -> None:
    """RFC 3720, B.4."""
    assert crc32c(bytes(32)) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
