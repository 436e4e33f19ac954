"""UnZipLoRA's three prompts: joint, content and style."""

from __future__ import annotations

from dataclasses import replace

from ..errors import problem
from .options import UnZipLoRASettings


def tidied(settings: UnZipLoRASettings) -> UnZipLoRASettings:
    """Normalise white space in the prompts, and set the loop's sample interval for validation."""
    looks = settings.images_per_validation or settings.saves_per_validation
    every = settings.validation_steps if looks else 0
    names = ("prompt", "content_prompt", "style_prompt", "class_prompt")
    return replace(
        settings,
        options=replace(settings.options, sample_every=every),
        **{name: " ".join(getattr(settings, name).split()) for name in names},
    )


def three_prompts(settings: UnZipLoRASettings) -> list[str]:
    """Return the joint, the content and the style prompt.

    Raises:
        ZipLoRAError: one of them is missing.
    """
    prompts = [settings.prompt, settings.content_prompt, settings.style_prompt]
    refuse_missing_prompt(*prompts)
    return prompts


def refuse_missing_prompt(prompt: str, content_prompt: str, style_prompt: str) -> None:
    """Refuse an empty one of the three prompts.

    Raises:
        ZipLoRAError: one of them is empty.
    """
    for name, given, expected in (
        ("prompt", prompt, "both, e.g. 'a monadikos cat in sketch style'"),
        ("content_prompt", content_prompt, "the subject without the style, e.g. 'a monadikos cat'"),
        ("style_prompt", style_prompt, "the style without the subject's name, e.g. 'a cat in "
         "sketch style'"),
    ):  # fmt: skip
        if not given.strip():
            raise problem(
                name,
                found="nothing",
                expected=f"a prompt for {expected}",
                advice="Write all three prompts: they tell the two LoRAs apart.",
            )


def prompt_of(settings: UnZipLoRASettings, part: str) -> str:
    """Return the prompt of a part: `content`, `style` or `merged`."""
    prompts = {"content": settings.content_prompt, "style": settings.style_prompt}
    return prompts.get(part, settings.prompt).strip()


def equal_prompt_warnings(settings: UnZipLoRASettings) -> list[str]:
    """Warn of equal content and style prompts; empty if they differ."""
    content, style = (
        " ".join(text.lower().split()) for text in (settings.content_prompt, settings.style_prompt)
    )
    if content != style:
        return []
    return [
        "content_prompt and style_prompt are the same: both LoRAs read the same words, so "
        "nothing separates the subject from the style, and each learns both. Leave the style's "
        "words out of the content prompt, and the subject's name out of the style prompt."
    ]
