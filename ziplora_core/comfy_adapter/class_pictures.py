"""Pictures of the subject's class, drawn by the MODEL itself: DreamBooth's prior preservation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from ..dreambooth import Example, View
from ..errors import ZipLoRAError, problem
from ..files.atomic import write_bytes
from ..framing import Framing
from ..resume_key import Inputs
from ..states import generator
from ..trainable import Watch
from . import conditioning as cond
from .euler import draw_latents
from .references import TRAJECTORY_STEPS
from .training_model import TrainingModel

_KEY = "latent"
_PURPOSE = 13  # a stream of noise of its own


def draw_class_pictures(
    opened: TrainingModel,
    prompt: tuple[str, Any],
    negative: Any,
    frame: Framing,
    count: int,
    seed: int,
    loaded: Inputs,
    root: Path,
    watch: Watch,
) -> list[Example]:
    """Draw `count` pictures without the branches: Euler, 25 steps, guidance 5.

    They stay in latent space, and in a file each: the next training with the same MODEL, prompt,
    size and seed takes them from there.

    Args:
        opened: the model before its training.
        prompt: the class prompt, and its CONDITIONING.
        negative: CONDITIONING of the empty prompt.
        frame: size of the pictures.
        count, seed: how many, and of what noise.
        loaded: the MODEL and the CLIP.
        root: folder of all class pictures.
        watch: told how many of how many samples have gone through the UNet.

    Raises:
        ZipLoRAError: it was asked to stop: nothing has been learned that could be kept.
    """
    caption, positive = prompt
    inputs = loaded | Inputs({"class": caption, "size": frame.target, "seed": seed})
    folder = inputs.find_folder(root)
    files = [folder / f"{n:04}.safetensors" for n in range(count)]
    size = (opened.model.latent_format.latent_channels, *(side // 8 for side in frame.target))
    like = torch.zeros(1, *size, device=opened.device)
    shown, nothing = ([cond.prepare(opened.model, c, like)] for c in (positive, negative))
    latents = [_read(file, size) for file in files]
    already = opened.evaluations
    total = 2 * TRAJECTORY_STEPS * sum(latent is None for latent in latents)
    opened.on_evaluation = lambda done: watch.on_prepare(done - already, total)
    examples = []
    for n, (file, latent) in enumerate(zip(files, latents, strict=True)):
        if watch.should_stop():
            raise _stopped(n, count)
        if latent is None:
            noise = torch.randn(1, *size, generator=generator(seed, _PURPOSE, n))
            drawn = draw_latents(opened, shown, nothing, noise, None, TRAJECTORY_STEPS)
            latent = drawn[0].cpu()
            _keep(file, latent, inputs)
        view = View(latent, torch.zeros_like(latent), Framing.drawn(*frame.target))
        examples.append(Example((view,), caption))
    opened.on_evaluation = lambda done: None
    return examples


def _stopped(done: int, count: int) -> ZipLoRAError:
    return problem(
        "training",
        found=f"a stop before the first step, after {done} of {count} class pictures",
        expected="something learned that can be kept",
        advice="The pictures drawn so far are kept: press Run to go on, or lower class_count.",
    )


def _read(path: Path, size: tuple[int, ...]) -> Tensor | None:
    """Read a picture that was drawn before; None when it is not there or damaged."""
    if not path.exists():
        return None
    try:
        latent = safetensors.torch.load_file(path)[_KEY]
    except (OSError, KeyError, ValueError, safetensors.SafetensorError):
        return None
    return latent if latent.shape == size and torch.isfinite(latent).all() else None


def _keep(path: Path, latent: Tensor, inputs: Inputs) -> None:
    """Write a picture for the next time; a disk that is full costs only that."""
    try:
        inputs.remember(path.parent)
        write_bytes(path, safetensors.torch.save({_KEY: latent}), replace=True)
    except OSError:
        return
