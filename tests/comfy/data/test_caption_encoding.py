"""Captions: matched to pictures, and learned as they are written."""

from __future__ import annotations

from pathlib import Path

import comfy.sd1_clip
import pytest
import safetensors.torch
import torch
from comfy.sdxl_clip import SDXLTokenizer
from transformers import CLIPTokenizer

from ziplora_core.comfy_adapter.data.caption_encoding import literal_note, match_captions

START, END = 49406, 49407
CAPTIONS = [
    "miku (vocaloid)",
    "saber (fate), (smile:1.3), ((best quality))",
    "a smile :) and a frown :(",
    "(unclosed, a dog",
    "embedding:foo on grass",
    "a dog, embedding:foo.",
    "an (embedding:foo)",
    r"a back\slash and a \\ pair",
]


@pytest.fixture
def tokenizer(tmp_path: Path) -> SDXLTokenizer:
    """The tokenizer of SDXL, with an embedding named foo."""
    embedding = {"clip_l": torch.ones(2, 768), "clip_g": torch.ones(2, 1280)}
    safetensors.torch.save_file(embedding, tmp_path / "foo.safetensors")
    return SDXLTokenizer(embedding_directory=str(tmp_path))


def tokens(tokenizer: SDXLTokenizer, text: str) -> list[object]:
    (chunk,) = tokenizer.tokenize_with_weights(text)["l"]
    assert all(isinstance(token, int) for token, _ in chunk)
    assert {weight for _, weight in chunk} == {1.0}
    return [token for token, _ in chunk]


@pytest.mark.parametrize("caption", CAPTIONS)
def test_literal_caption_has_the_tokens_of_transformers_for_the_text_as_written(
    caption: str, tokenizer: SDXLTokenizer
) -> None:
    folder = Path(comfy.sd1_clip.__file__).parent / "sd1_tokenizer"
    reference = CLIPTokenizer.from_pretrained(folder)(caption, padding="max_length", max_length=77)
    (prompt,) = match_captions([caption], "a dog", 1)
    assert tokens(tokenizer, prompt) == reference["input_ids"]


def test_literal_caption_with_a_taggers_escapes_has_the_tokens_of_the_prompt(
    tokenizer: SDXLTokenizer,
) -> None:
    written = r"miku \(vocaloid\), smile"
    (prompt,) = match_captions([written], "a dog", 1)
    assert tokens(tokenizer, prompt) == tokens(tokenizer, written)
    assert tokens(tokenizer, prompt) == tokens(
        tokenizer, *match_captions(["miku (vocaloid), smile"], "", 1)
    )


def test_captions_in_comfyuis_syntax_and_prompts_stay_what_they_are(
    tokenizer: SDXLTokenizer,
) -> None:
    captions = ["a (dog:1.2), embedding:foo", ""]
    prompt = "(sks:1.1) dog"
    assert match_captions(captions, prompt, 2, literal=False) == [captions[0], prompt]
    assert match_captions(captions, prompt, 2)[1] == prompt
    (chunk,) = tokenizer.tokenize_with_weights(captions[0])["l"]
    assert {weight for _, weight in chunk} == {1.0, 1.2}
    assert any(isinstance(token, torch.Tensor) for token, _ in chunk)


@pytest.mark.parametrize("caption", ["a (dog:1.2)", "a dog, embedding:foo"])
def test_literal_caption_that_looks_like_a_prompt_is_named(caption: str) -> None:
    (note,) = literal_note(["miku (vocaloid)", caption])
    assert repr(caption) in note and "literal_captions" in note


def test_ordinary_captions_need_no_note() -> None:
    assert literal_note(["miku (vocaloid)", "a dog (2023)", "at 10:30"]) == []
