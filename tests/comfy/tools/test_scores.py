"""Alignment scores are those of transformers' own encoders with the same random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from comfy.clip_vision import ClipVisionModel
from comfy.sd import CLIP
from torch import Tensor, nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Dinov2Config,
    Dinov2Model,
)

from sandbox.tiny_pack.models import CLIP_CONFIG
from sandbox.tiny_pack.vision import CONFIGS, tiny_vision
from ziplora_core.comfy_adapter.tools.image_encoders import describe_encoder, encode_pictures
from ziplora_core.comfy_adapter.tools.scores import ScoreInputs, Scores, score
from ziplora_core.errors import ZipLoRAError
from ziplora_core.plots.scores import as_csv

SIDE = 32
PROMPT = "a sks dog in watercolor style"
CLOSE = 1e-5


def pictures(count: int, seed: int, side: int = SIDE) -> list[Tensor]:
    """Return pictures of the encoders' own size, with 8 bits as in a file."""
    generator = torch.Generator().manual_seed(seed)
    tint = torch.rand(count, 1, 1, 3, generator=generator)
    shown = (tint + torch.rand(count, side, side, 3, generator=generator)) / 2
    return list((shown * 255).round() / 255)


def randomised(model: nn.Module, seed: int) -> Any:
    """Draw all weights, exact in the half precision in which ComfyUI keeps them."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        values = torch.randn(parameter.shape, generator=generator) * 0.2
        parameter.data.copy_((values + (parameter.ndim == 1)).half())
    return model.eval()


def published(source: Any, folder: Path) -> dict[str, Tensor]:
    """Return its weights by their names in a file; some differ in transformers."""
    source.save_pretrained(folder)
    return safetensors.torch.load_file(folder / "model.safetensors")


def loaded(encoder: ClipVisionModel, weights: dict[str, Tensor]) -> ClipVisionModel:
    missing, unexpected = encoder.load_sd(weights)
    assert not missing and not unexpected
    return encoder


def normalised(shown: list[Tensor], mean: list[float], std: list[float]) -> Tensor:
    return ((torch.stack(shown) - torch.tensor(mean)) / torch.tensor(std)).movedim(-1, 1)


def mean_over_pairs(drawn: Tensor, others: Tensor) -> float:
    cosines = [torch.cosine_similarity(a, b, dim=0) for a in drawn for b in others]
    return float(torch.stack(cosines).mean())


class Both:
    """Each encoder in ComfyUI's class and in transformers', with the same weights."""

    def __init__(self, clip: CLIP, folder: Path) -> None:
        config = CLIPVisionConfig.from_json_file(CONFIGS["clip_vision"])
        vision = randomised(CLIPVisionModelWithProjection(config), 1)
        dino = randomised(Dinov2Model(Dinov2Config.from_json_file(CONFIGS["dinov2"])), 2)
        sizes = {**CLIP_CONFIG, "hidden_act": "gelu", "eos_token_id": 49407}
        text = randomised(CLIPTextModelWithProjection(CLIPTextConfig(**sizes)), 3)
        self.theirs = vision, dino, text
        self.clip_vision = loaded(tiny_vision("clip_vision"), published(vision, folder))
        self.dino = loaded(tiny_vision("dinov2"), published(dino, folder))
        self.clip = clip
        missing, _ = clip.cond_stage_model.clip_g.transformer.load_state_dict(
            published(text, folder), strict=False
        )
        assert not missing

    @torch.no_grad()
    def clip_i(self, shown: list[Tensor]) -> Tensor:
        own = self.clip_vision
        inputs = normalised(shown, own.image_mean, own.image_std)
        return self.theirs[0](pixel_values=inputs).image_embeds

    @torch.no_grad()
    def dino_token(self, shown: list[Tensor]) -> Tensor:
        inputs = normalised(shown, self.dino.image_mean, self.dino.image_std)
        return self.theirs[1](pixel_values=inputs).pooler_output

    @torch.no_grad()
    def text(self, prompt: str) -> Tensor:
        tokens = [token for token, _ in self.clip.tokenize(prompt)["g"][0]]
        return self.theirs[2](input_ids=torch.tensor([tokens])).text_embeds


@pytest.fixture
def both(clip: CLIP, tmp_path: Path) -> Both:
    return Both(clip, tmp_path / "weights")


def test_scores_and_embeddings_agree_with_transformers(both: Both) -> None:
    drawn, style, subject = (pictures(n, seed) for n, seed in ((3, 0), (2, 1), (4, 2)))
    for ours, theirs in ((both.clip_vision, both.clip_i), (both.dino, both.dino_token)):
        wanted = theirs(drawn)
        error = (encode_pictures(ours, drawn) - wanted).norm() / wanted.norm()
        assert error < CLOSE

    scores = score(
        ScoreInputs(drawn, style, subject, PROMPT, both.clip_vision, both.dino, both.clip)
    )
    wanted = (
        (scores.style, mean_over_pairs(both.clip_i(drawn), both.clip_i(style)), 6),
        (scores.subject, mean_over_pairs(both.dino_token(drawn), both.dino_token(subject)), 12),
        (scores.text, mean_over_pairs(both.clip_i(drawn), both.text(PROMPT)), 3),
    )
    for got, cosine, pairs in wanted:
        assert got is not None and got.pairs == pairs
        assert got.cosine == pytest.approx(cosine, abs=CLOSE) and 0 < abs(cosine) < 0.999
    heading, *rows = as_csv(scores.rows).splitlines()
    assert heading == "metric,encoder,pairs,cosine" and len(rows) == 3
    assert [float(row.rsplit(",", 1)[1]) for row in rows] == pytest.approx(
        [cosine for _, cosine, _ in wanted], abs=CLOSE
    )
    said = "\n".join(scores.notes)
    assert "DINOv2 is not the paper's DINO" in said and "OpenCLIP bigG" in said
    assert rows[0].startswith('style (CLIP-I),"CLIP of 3 layers, 48 wide",6,')


def test_picture_beside_itself_scores_one_whatever_its_size(both: Both) -> None:
    mixed = [*pictures(1, 5, side=50), pictures(1, 6, side=64)[0][:, :40]]
    for one in mixed:
        scores = score(ScoreInputs([one], [one], [one], "", both.clip_vision, both.dino))
        assert [row.cosine for row in scores.rows] == pytest.approx([1, 1])
        assert scores.text is None
    several: Scores = score(ScoreInputs(mixed, mixed, clip_vision=both.clip_vision))
    assert several.style and several.style.pairs == 4 and several.style.cosine < 1


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "style_images, subject_images and prompt: found none of them"),
    ({"style_images": 1}, "clip_vision: found nothing, with style_images given"),
    ({"subject_images": 1, "clip_vision": {}}, "dino: found nothing, with subject_images"),
    ({"prompt": PROMPT, "clip_vision": {}}, "clip: found nothing, with prompt given"),
    ({"style_images": 1, "clip_vision": {"kind": "dinov2"}}, "clip_vision: found DINOv2 of 2"),
    ({"subject_images": 1, "dino": {"kind": "clip_vision"}}, "dino: found CLIP of 3 layers"),
    (
        {"prompt": PROMPT, "clip_vision": {"projection_dim": 24}, "clip": True},
        "whose embeddings have 24 numbers, expected 32 numbers, as the prompt's: OpenCLIP "
        "ViT-bigG/14",
    ),
]


def test_what_cannot_be_compared_is_refused_by_name(clip: CLIP) -> None:
    for given, words in REFUSED:
        made: dict[str, Any] = {}
        for name, value in given.items():
            if isinstance(value, dict):
                made[name] = tiny_vision(**{"kind": "clip_vision", **value})
            else:
                made[name] = {"clip": clip, "prompt": value}.get(name, pictures(1, 1))
        with pytest.raises(ZipLoRAError) as error:
            score(ScoreInputs(pictures(1, 0), **made))
        assert words in str(error.value)


def test_published_encoders_are_named_by_their_config() -> None:
    for kind, size, name in (
        ("clip_vision", (1280, 32), "CLIP ViT-H/14"),
        ("clip_vision", (1664, 48), "CLIP ViT-bigG/14"),
        ("dinov2", (1024, 24), "DINOv2 ViT-L/14"),
    ):
        encoder = tiny_vision(kind)
        encoder.config.update(hidden_size=size[0], num_hidden_layers=size[1])
        assert describe_encoder(encoder) == name
