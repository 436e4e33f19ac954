"""The pack's error type and message format: subject, found, expected, advice."""

from __future__ import annotations

from collections.abc import Collection

LONGEST = 1000
"""Longest part of a message, in letters: a file can have a key of millions."""


class ZipLoRAError(ValueError):
    """An error that the user can fix; its message is written for the user."""

    __module__ = "ziplora"  # which ComfyUI shows before the message


def problem(subject: str, *, found: object, expected: str, advice: str) -> ZipLoRAError:
    """Build the error "`subject`: found `found`, expected `expected`. `advice`".

    Args:
        subject: the file, key or input concerned, e.g. `a.safetensors, key lora_unet_x.alpha`.
        found: the actual value.
        expected: the valid values.
        advice: one imperative sentence that tells the user what to do.

    Parts longer than LONGEST lose their middle.
    """
    subject, said, expected, advice = map(_cut, (subject, str(found), expected, advice))
    return ZipLoRAError(f"{subject}: found {said}, expected {expected}. {advice}")


def refuse_unknown(name: str, value: object, options: Collection[str]) -> None:
    """Refuse a choice that is none of the options, as a program that queues graphs may send.

    Raises:
        ZipLoRAError: `value` is not one of `options`.
    """
    if not isinstance(value, str) or value not in options:
        raise problem(
            name,
            found=repr(value),
            expected=f"one of {', '.join(options)}",
            advice="Choose one of these; their names are written in small letters.",
        )


def _cut(text: str) -> str:
    """Leave out the middle of a long text, and say how much."""
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2
    return f"{text[:half]} … {len(text) - LONGEST} letters left out … {text[-half:]}"
