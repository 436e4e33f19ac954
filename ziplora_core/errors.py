"""The pack's error type and message format: subject, found, expected, advice."""

from __future__ import annotations


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
    """
    return ZipLoRAError(f"{subject}: found {found}, expected {expected}. {advice}")
