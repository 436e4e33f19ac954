"""UnZipLoRA's three prompts: the joint one, the content's and the style's."""

from __future__ import annotations

from dataclasses import replace

from .errors import problem
from .options import UnZipSettings


def tidied(settings: UnZipSettings) -> UnZipSettings:
    """Strip the prompts, and make validation what the loop's samples are."""
    looks = settings.images_per_validation or settings.saves_per_validation
    every = settings.validation_steps if looks else 0
    names = ("prompt", "content_prompt", "style_prompt", "class_prompt")
    return replace(
        settings,
        options=replace(settings.options, sample_every=every),
        **{name: " ".join(getattr(settings, name).split()) for name in names},
    )


def three_prompts(settings: UnZipSettings) -> list[str]:
    """The joint, the content and the style prompt.

    Raises:
        ZipLoRAError: one of them is missing.
    """
    examples = {
        "prompt": "both, e.g. 'a monadikos cat in sketch style'",
        "content_prompt": "the subject without the style, e.g. 'a monadikos cat'",
        "style_prompt": "the style without the subject's name, e.g. 'a cat in sketch style'",
    }
    for name, expected in examples.items():
        if not getattr(settings, name):
            raise problem(
                name,
                found="nothing",
                expected=f"words for {expected}",
                advice="Write all three prompts: what each LoRA reads is what tells them apart.",
            )
    return [getattr(settings, name) for name in examples]


def prompt_of(settings: UnZipSettings, part: str) -> str:
    """What `content`, `style` or both `merged` are prompted with."""
    prompts = {"content": settings.content_prompt, "style": settings.style_prompt}
    return prompts.get(part, settings.prompt).strip()


def same_prompts(settings: UnZipSettings) -> list[str]:
    """Warn of a content and a style prompt that are the same; nothing where they differ."""
    content, style = (
        " ".join(text.lower().split()) for text in (settings.content_prompt, settings.style_prompt)
    )
    if content != style:
        return []
    return [
        "content_prompt and style_prompt are the same: both LoRAs read the same words, so "
        "nothing tells the subject from the style and either learns both. Leave the style's "
        "words out of the content prompt, and the subject's name out of the style prompt."
    ]
