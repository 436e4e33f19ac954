"""The rows of a search: their names, the sheet, the table, and the choice among them."""

from __future__ import annotations

import pytest
import torch

from ziplora_core.errors import ZipLoRAError
from ziplora_core.lora.merged import MergedLoRA
from ziplora_core.merging.strengths import Strengths
from ziplora_core.merging.successive_halving import Trial
from ziplora_core.plots import LIGHT
from ziplora_core.plots.found import FoundMerge, FoundMerges, found_rows, sheet, small
from ziplora_core.plots.judge import Judged
from ziplora_core.plots.style import rgb

SIDE = 64


def row(strengths: Strengths, *smaller: float, kind: str = "merged") -> FoundMerge:
    scores = tuple(Judged(score, score + 0.5) for score in smaller)
    pictures = torch.full((len(scores), SIDE, SIDE, 3), 51, dtype=torch.uint8)
    return FoundMerge(kind, Trial(strengths, scores), MergedLoRA({}), pictures)


FOUND = FoundMerges([row((0.9, 0.7), 0.8, 0.6), row((1, 1), 0.5, 0.5), row((1, 0.6), 0.4)], 0.0, 7)


def test_rows_are_named_and_tabled_in_order() -> None:
    assert FOUND.labels() == ["1: 0.9 / 0.7, 0.70", "2: 1 / 1, 0.50", "3: 1 / 0.6, 0.40"]
    heading, first, *_, last = found_rows(FOUND, digits=2)
    assert heading == (
        "kind", "content", "style", "negative", "pictures", "subject", "style score", "smaller",
        "place",
    )  # fmt: skip
    assert first == ("merged", "0.9", "0.7", "0", "2", "0.70", "1.20", "0.70", "1")
    assert last == ("merged", "1", "0.6", "0", "1", "0.40", "0.90", "0.40", "3")
    both = FoundMerges([*FOUND.rows, row((1, 1), 0.9, kind="other_merged")], 0.0, 7)
    assert both.labels()[0] == "1: merged 0.9 / 0.7, 0.70"
    assert both.labels()[3] == "4: other_merged 1 / 1, 0.90"


def test_sheet_has_a_row_for_each_and_leaves_out_what_was_not_drawn() -> None:
    drawn = sheet(FOUND, LIGHT)
    bottom = drawn[-SIDE // 2]  # through the last row of pictures
    assert tuple(bottom[-2 * SIDE + SIDE // 2]) == (51, 51, 51)
    assert tuple(bottom[-SIDE // 2]) == rgb(LIGHT.ground)
    assert drawn.shape[0] > 3 * SIDE and drawn.shape[1] > 2 * SIDE


def test_choice_is_a_row_of_the_table_and_a_blind_order_has_them_all() -> None:
    assert FOUND.chosen(0) is FOUND.chosen(1) is FOUND.rows[0]
    assert FOUND.chosen(3).strengths == (1, 0.6)
    with pytest.raises(ZipLoRAError, match="choice: found 4, expected a row from 1 to 3, or 0"):
        FOUND.chosen(4)
    many = FoundMerges([row((n / 10, 1), 0.5) for n in range(1, 21)], 0.0, 7)
    order = many.shuffled()
    assert sorted(order) == list(range(1, 21)) != order and order == many.shuffled()


def test_large_pictures_are_shrunk_for_the_sheet() -> None:
    assert small(torch.rand(2, 1024, 512, 3)).shape == (2, 512, 256, 3)
    pictures = torch.rand(2, SIDE, SIDE, 3)
    assert small(pictures) is pictures
