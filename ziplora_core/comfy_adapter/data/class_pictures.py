"""Class pictures for DreamBooth's prior preservation, drawn by the MODEL itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from ...dreambooth.objective import TrainingExample, View
from ...errors import ZipLoRAError, problem
from ...files.atomic import write_bytes
from ...training.framing import Framing
from ...training.interface import ProgressCallbacks
from ...training.limits import kept_within_limits
from ...training.random import Stream
from ...training.resume_key import Inputs
from ..model import conditioning as cond
from ..model.family import guided_halves
from ..model.sampler import sample_latents
from ..model.training_model import TrainingModel
from .references import TRAJECTORY_STEPS
from .samples import sample_noise

_KEY = "latent"


def draw_class_pictures(
    opened: TrainingModel,
    prompt: tuple[str, Any],
    negative: Any,
    frame: Framing,
    count: int,
    seed: int,
    loaded: Inputs,
    root: Path,
    callbacks: ProgressCallbacks,
    notes: list[str],
) -> list[TrainingExample]:
    """Draw `count` pictures without the branches: Euler, 25 steps, the model's guidance.

    The latents are saved, one file each, for the next training with the same MODEL, prompt, size
    and seed.

    Args:
        opened: the model before its training.
        prompt: the class prompt, and its CONDITIONING.
        negative: the CONDITIONING of the empty prompt.
        frame: the size of the pictures.
        count: the number of pictures.
        seed: the seed of the noise.
        loaded: the MODEL and the CLIP, which identify the folder.
        root: the folder of all class pictures.
        callbacks: the callbacks for progress, given (done, total) UNet evaluations, and for stop.
        notes: lines of the report, to which the reason is added when they cannot be saved.

    Raises:
        ZipLoRAError: a stop on request, before anything was learned.
    """
    caption, positive = prompt
    inputs = loaded | Inputs({"class": caption, "size": frame.target, "seed": seed})
    folder = inputs.find_folder(root)
    files = [folder / f"{n:04}.safetensors" for n in range(count)]
    size = opened.latent_shape(*frame.target)
    like = torch.zeros(1, *size, device=opened.device)
    shown, nothing = ([cond.prepare(opened.model, c, like)] for c in (positive, negative))

    def draw(n: int) -> Tensor:
        noise = sample_noise(opened, frame, seed, n, Stream.CLASS_PICTURES)
        return sample_latents(opened, shown, nothing, noise, None, TRAJECTORY_STEPS)[0].cpu()

    with kept_within_limits(folder, "sets of class pictures", notes) as kept:
        latents = [_read(file, size) for file in files]
        already = opened.evaluations
        missing = sum(latent is None for latent in latents)
        total = guided_halves(opened.model) * TRAJECTORY_STEPS * missing
        opened.on_evaluation = lambda done: callbacks.on_prepare(done - already, total)
        examples, refused = [], None
        for n, (file, latent) in enumerate(zip(files, latents, strict=True)):
            if callbacks.should_stop():
                raise _stopped(n, count)
            if latent is None:
                latent = draw(n)
                refused = _keep(file, latent, inputs) or refused
            view = View(latent, torch.zeros_like(latent), Framing.drawn(*frame.target))
            examples.append(TrainingExample((view,), caption))
        opened.on_evaluation = lambda done: None
    notes += kept[1:]  # what was removed; Past Trainings lists the rest
    if refused:
        notes.append(
            f"WARNING: class pictures could not be kept ({refused.strerror or refused}): the next "
            "training draws them again."
        )
    return examples


def _stopped(done: int, count: int) -> ZipLoRAError:
    return problem(
        "training",
        found=f"a stop before the first step, after {done} of {count} class pictures",
        expected="at least one training step to keep",
        advice="The pictures drawn so far are kept: press Run to go on, or lower class_count.",
    )


def _read(path: Path, size: tuple[int, ...]) -> Tensor | None:
    """Read a latent that was drawn before; None if it is missing or damaged."""
    if not path.exists():
        return None
    try:
        latent = safetensors.torch.load_file(path)[_KEY]
    except (OSError, KeyError, ValueError, safetensors.SafetensorError):
        return None
    return latent if latent.shape == size and torch.isfinite(latent).all() else None


def _keep(path: Path, latent: Tensor, inputs: Inputs) -> OSError | None:
    """Write a latent for the next training; return the error that prevents it, as a full disk."""
    try:
        inputs.remember(path.parent)
        write_bytes(path, safetensors.torch.save({_KEY: latent}), replace=True)
    except OSError as error:
        return error
    return None
