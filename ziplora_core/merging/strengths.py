"""Pairs of content and style strength, as a person writes them."""

from __future__ import annotations

import math
import re

from ..errors import ZipLoRAError, problem

Strengths = tuple[float, float]
"""The strengths of content and of style."""
BASELINE: Strengths = (1.0, 1.0)
"""The merge as it is."""


def parse_strengths(text: str) -> list[Strengths]:
    """Read pairs such as `0.9/0.7`, with commas or line breaks between them.

    Args:
        text: the text of the input.

    Returns:
        the pairs without repetitions, `BASELINE` first, whether it was listed or not.

    Raises:
        ZipLoRAError: text that is not such a pair, 0/0, or no pair beside `BASELINE`.
    """
    parts = [part.strip() for part in re.split(r"[,;\n]", text.replace("−", "-"))]
    pairs = [BASELINE, *(_pair(part) for part in parts if part)]
    distinct = list(dict.fromkeys(pairs))
    if len(distinct) == 1:
        raise _not_pairs(repr(text))
    return distinct


def write_strengths(strengths: Strengths) -> str:
    """Write a pair for people: `0.9 / 0.7`."""
    return "{:g} / {:g}".format(*strengths)


def _pair(part: str) -> Strengths:
    try:
        content, style = (float(number) for number in part.split("/"))
    except ValueError as error:
        raise _not_pairs(repr(part)) from error
    if not (math.isfinite(content) and math.isfinite(style)) or content == style == 0:
        raise _not_pairs(repr(part))
    return content, style


def _not_pairs(found: str) -> ZipLoRAError:
    return problem(
        "strengths",
        found=found,
        expected="pairs of content strength / style strength with commas between them, at least "
        "one beside 1/1, none of them 0/0",
        advice="For example: 1/1, 0.9/0.7, 0.8/0.8",
    )
