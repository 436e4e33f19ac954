"""The one error style of the pack: subject, what was found, what was expected, what to do."""

from __future__ import annotations


class ZipLoRAError(ValueError):
    """A problem the person at the canvas can solve; its text is meant to be read by them."""


def problem(subject: str, *, found: object, expected: str, advice: str) -> ZipLoRAError:
    """Build the error "`subject`: found `found`, expected `expected`. `advice`".

    Args:
        subject: the file, key or input it is about, e.g. `a.safetensors, key lora_unet_x.alpha`.
        found: what is there.
        expected: what would have been right.
        advice: one sentence, in the imperative: what the person can do now.
    """
    return ZipLoRAError(f"{subject}: found {found}, expected {expected}. {advice}")
