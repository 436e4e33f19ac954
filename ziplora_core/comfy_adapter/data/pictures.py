"""Training pictures: checks, framing and VAE encoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import comfy.model_management
import torch
from torch import Tensor, nn

from ...dreambooth.objective import TrainingExample, View
from ...errors import problem
from ...training.framing import PIXELS_PER_LATENT, Framing, framing, reframe
from ..model.family import latent_shape


def split_pictures(images: Sequence[Tensor] | Tensor, name: str) -> list[Tensor]:
    """Split a batch, or a list of batches of different sizes, into pictures `(h, w, 3)`.

    Args:
        images: the batch or batches `(b, h, w, 3)`, in 0…1.
        name: the input's name, for the message.

    Raises:
        ZipLoRAError: no pictures, or pictures that are too small, not finite or not in colour.
    """
    batches = [images] if isinstance(images, Tensor) else list(images)
    pictures = [picture for batch in batches for picture in batch]
    found = None
    if not pictures:
        found = "none"
    for n, picture in enumerate(pictures, start=1):
        if picture.ndim != 3 or picture.shape[-1] < 3:
            found = f"picture {n} of shape {tuple(picture.shape)}"
        elif min(picture.shape[:2]) < PIXELS_PER_LATENT:
            height, width = picture.shape[:2]
            found = f"picture {n} of {width} × {height} pixels"
        elif not torch.isfinite(picture).all():
            found = f"NaN or infinity in picture {n}"
        if found:
            break
    if found:
        raise problem(
            name,
            found=found,
            expected="colour pictures of at least "
            f"{PIXELS_PER_LATENT} × {PIXELS_PER_LATENT} pixels",
            advice="Connect Load Image, Load Training Images, or a batch of them.",
        )
    return [picture[..., :3] for picture in pictures]


def refuse_other_vae(vae: Any, model: Any) -> None:
    """Refuse a VAE whose latents are not those of a `BaseModel`.

    Raises:
        ZipLoRAError: a VAE with another number of channels.
    """
    channels = model.latent_format.latent_channels
    if vae.latent_channels != channels:
        raise problem(
            "vae",
            found=f"a VAE of {vae.latent_channels} latent channels",
            expected=f"{channels} channels, as for this checkpoint",
            advice="Connect the VAE of the same checkpoint.",
        )


def encode_pictures(
    vae: Any, model: Any, pictures: Sequence[Tensor], captions: Sequence[str], resolution: int,
    mirror: bool,
) -> list[TrainingExample]:  # fmt: skip
    """Frame every picture and encode it once, and with `mirror` also its mirror image.

    Args:
        vae: the connected VAE.
        model: the `BaseModel` that gives the latent scale.
        pictures: the pictures `(h, w, 3)` in 0…1.
        captions: the caption of each picture.
        resolution: see `framing`.
        mirror: whether each picture's mirror image is added.

    Raises:
        ZipLoRAError: the VAE belongs to another kind of model.
    """
    examples = []
    for picture, caption in zip(pictures, captions, strict=True):
        comfy.model_management.throw_exception_if_processing_interrupted()
        height, width = picture.shape[:2]
        frame = framing(height, width, resolution)
        pixels = reframe(picture, frame)
        views = [_view(vae, model, pixels, frame)]
        if mirror:
            views.append(_view(vae, model, pixels.flip(1), frame.mirrored()))
        examples.append(TrainingExample(tuple(views), caption))
    return examples


def encode_whole(vae: Any, model: Any, picture: Tensor) -> Tensor:
    """Encode a picture at its own size into the model's latent space.

    Args:
        vae: the connected VAE.
        model: the `BaseModel` that gives the latent scale.
        picture: the picture `(h, w, 3)` in 0…1; its sides are multiples of 8.

    Returns:
        the latent `(c, h / 8, w / 8)`, float32, on the CPU.

    Raises:
        ZipLoRAError: the VAE belongs to another kind of model, or its latent is not finite.
    """
    with torch.inference_mode():
        latent = vae.encode(picture[None])
    _check_latent(latent, model)
    return model.process_latent_in(latent.clone().float().cpu())[0]


def _view(vae: Any, model: Any, pixels: Tensor, frame: Framing) -> View:
    """Encode `(h, w, 3)` into the mean and the standard deviation of its latent.

    ComfyUI's VAE returns the mean only; a hook on its regularisation reads the log variance. A VAE
    without a distribution (TAESD), or one that ran in tiles for lack of memory, has deviation 0.
    """
    seen: list[Tensor] = []
    regularisation = getattr(vae.first_stage_model, "regularization", None)
    handle = None
    if isinstance(regularisation, nn.Module):
        handle = regularisation.register_forward_pre_hook(lambda _m, x: seen.append(x[0]))
    try:
        with torch.inference_mode():
            mean = vae.encode(pixels[None])
    finally:
        if handle is not None:
            handle.remove()
    _check_latent(mean, model)
    mean = mean.clone().float().cpu()
    std = torch.zeros_like(mean)
    channels = mean.shape[1]
    if len(seen) == 1 and seen[0].shape[1:] == (2 * channels, *mean.shape[2:]):
        log_variance = seen[0][:, channels:].clone().float().cpu().clamp(-30, 20)
        std = (0.5 * log_variance).exp()
    scale = model.process_latent_in(torch.ones_like(mean)) - model.process_latent_in(std * 0)
    return View(model.process_latent_in(mean)[0], (scale * std)[0], frame)


def _check_latent(latent: Tensor, model: Any) -> None:
    expected = latent_shape(model, 0, 0)[:-2]  # channels, and one frame where there are frames
    if latent.shape[1:-2] != expected or not torch.isfinite(latent).all():
        raise problem(
            "vae",
            found=f"latents of shape {tuple(latent.shape)}, or not finite",
            expected=f"{expected[0]} channels, as for this checkpoint",
            advice="Connect the VAE of the same checkpoint (fp16 VAEs may overflow: use the "
            "fp16-fix, or start ComfyUI with --fp32-vae).",
        )
