"""Other families than SDXL's refuse videos and sounds by name, and take packed weights."""

from __future__ import annotations

from pathlib import Path

import comfy.supported_models as supported
import pytest
import torch
from comfy.ldm.audio.embedders import NumberConditioner

from sandbox.families import tiny_family
from ziplora_core.comfy_adapter.data.references import reference_latents
from ziplora_core.comfy_adapter.model.bases import refuse_refiner
from ziplora_core.errors import ZipLoRAError
from ziplora_core.files.writer import kohya_tensors
from ziplora_core.merging.settings import MergeSettings

from ..family_models import far, make_pair, predict, stock
from .test_families import learn, merge_pair
from .test_quantised import FORMATS, pack

PACKED = (
    *(("FLUX.1", form) for form in FORMATS),
    *(("Z-Image", "nvfp4"), ("Qwen-Image", "float8_e4m3fn")),
)


@pytest.mark.parametrize("family", ["Wan 2.1", "Qwen-Image", "FLUX.1"])
def test_latents_of_a_video_are_refused_by_their_frames(family: str) -> None:
    model = tiny_family(family).model
    with pytest.raises(ZipLoRAError, match=r"^style_latent: found a video of 3 frames, expected "):
        reference_latents(model, {"samples": torch.ones(1, 16, 3, 8, 8)}, "style_latent")


def test_model_that_draws_no_images_is_refused_by_name() -> None:
    config = supported.StableAudio({"audio_model": "dit1.0"})
    config.set_inference_dtype(torch.float32, None)
    sizes = {
        "io_channels": 64,
        "embed_dim": 64,
        "depth": 1,
        "num_heads": 1,
        "cond_token_dim": 32,
        "global_cond_dim": 32,
        "project_cond_tokens": False,
        "transformer_type": "continuous_transformer",
    }
    config.unet_config |= sizes
    seconds = NumberConditioner(768, min_val=0, max_val=512).state_dict()
    file = {
        f"conditioner.conditioners.seconds_{end}.{key}": weight
        for end in ("start", "total")
        for key, weight in seconds.items()
    }
    audio = config.get_model(file, device=torch.device("cpu"))
    with pytest.raises(ZipLoRAError, match="found StableAudio1, which does not draw images"):
        refuse_refiner(audio)


@pytest.mark.parametrize(("family", "form"), PACKED)
def test_merge_on_packed_weights_is_learned_and_loaded_by_the_stock_loader(
    family: str, form: str, tmp_path: Path
) -> None:
    model = tiny_family(family)
    pair, tensors = make_pair(model)
    packed = pack(model, form)
    with torch.inference_mode():
        direct, _ = merge_pair(packed.model, pair, "direct", MergeSettings())
        result = learn(packed, pair, family, tmp_path)
    assert result.loss[-1] < 1
    want, got, base = (
        predict(stock(packed, *loras), family)
        for loras in (tensors, [kohya_tensors(direct.modules())], [])
    )
    assert 5 * far(got, want) < far(base, want)  # both are packed anew, by which they differ
