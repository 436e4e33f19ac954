"""Under what a joint picture is drawn: as the merge was made for, and otherwise."""

from __future__ import annotations

from dataclasses import dataclass

from miniworld.parts import GUIDANCE, STEPS

from .subjects import JOINT_PROMPT, STYLE_WORD, SUBJECT, SUBJECT_WORD


@dataclass(frozen=True)
class Condition:
    """Prompt, strengths of content and style, and the sampling."""

    prompt: str = JOINT_PROMPT
    content: float = 1.0
    style: float = 1.0
    sampler: str = "euler"
    scheduler: str = "normal"
    guidance: float = GUIDANCE
    steps: int = STEPS


AS_MADE = "as made"
CONDITIONS = {
    AS_MADE: Condition(),
    "other wording": Condition(f"{STYLE_WORD} style {SUBJECT_WORD} shape"),
    "another scene": Condition(f"{SUBJECT} on the left with a small square in {STYLE_WORD} style"),
    "both at 0.8": Condition(content=0.8, style=0.8),
    "style at 0.7": Condition(style=0.7),
    "both at 1.2": Condition(content=1.2, style=1.2),
    "DPM++ 2M Karras": Condition(sampler="dpmpp_2m", scheduler="karras"),
    "CFG 5": Condition(guidance=5.0),
    "30 steps": Condition(steps=30),
}
STRENGTHS = {
    f"{content:g} / {style:g}": Condition(content=content, style=style)
    for content, style in (
        *((1.0, 1.0), (0.8, 1.0), (1.0, 0.8), (1.2, 1.0)),
        *((1.0, 1.2), (0.8, 0.8), (1.2, 1.2)),
    )
}
"""Strengths of content and style that people try by hand."""
