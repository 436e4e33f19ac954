"""ZipLoRA on a loaded MODEL, from two LoRAs to the merged one: the steps in their order."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import comfy.model_management
import torch

from ..branches import Branches
from ..checkpoint import CheckpointFolder, fingerprint, sampled
from ..coefficients import MergerCoefficients
from ..files.metadata import source_metadata
from ..merge import MergedLoRA
from ..options import ZipSettings
from ..pairing import LoRAPair
from ..report import Retention, zip_report
from ..states import State, retention
from ..training import Hooks, TrainingRecord, train
from ..zip_objective import ZipObjective
from . import conditioning as cond
from .pairs import pair_on_model, trained_modules
from .private_copy import compute_dtype, refuse_patched
from .references import (
    Reference,
    draw_pictures,
    evaluations,
    noised_states,
    reference_latents,
)
from .targets import unet_targets
from .training_model import TrainingModel, training_model

POOL = 32
"""Teacher draws per concept; their targets are computed once."""
_TRAINING, _HELD_OUT = 0, 1  # streams of a seed
_BYTES_PER_SAMPLE = 5.3 * 2**30
"""Saved activations of one SDXL sample of 128 × 128 latents in bf16 (ziplora.md §4.2)."""


@dataclass(frozen=True)
class Prompt:
    """One concept's inputs as the node receives them."""

    name: str
    conditioning: Any
    latent: Any | None = None


@dataclass(frozen=True)
class ZipResult:
    merged: MergedLoRA
    record: TrainingRecord
    report: str


def optimise(
    model: Any,
    pair: LoRAPair,
    prompts: tuple[Prompt, Prompt],
    settings: ZipSettings,
    checkpoints: Path,
    on_step: Callable[[TrainingRecord], None] = lambda record: None,
    should_stop: Callable[[], bool] = lambda: False,
    on_prepare: Callable[[int, int], None] = lambda done, total: None,
) -> ZipResult:
    """Learn the merger coefficients of a pair on a MODEL; see `ZipSession`.

    ComfyUI runs nodes in inference mode, whose tensors autograd refuses: everything is made
    outside it.
    """
    with torch.inference_mode(False), torch.enable_grad():
        session = ZipSession(model, pair, prompts, settings)
        return session.run(checkpoints, on_step, should_stop, on_prepare)


class ZipSession:
    """One optimisation. Making it checks everything that needs no computing.

    Args:
        model: the person's ModelPatcher; it is not changed.
        pair: the two LoRAs and their strengths.
        prompts: content's and style's prompt, latents optional.
        settings: the node's widgets.

    Raises:
        ZipLoRAError: anything about the inputs that a person can put right.
    """

    def __init__(
        self, model: Any, pair: LoRAPair, prompts: tuple[Prompt, Prompt], settings: ZipSettings
    ) -> None:
        refuse_patched(model)
        for prompt in prompts:
            cond.check(prompt.conditioning, f"{prompt.name}_conditioning", model.model)
        self.model, self.pair, self.prompts, self.settings = model, pair, prompts, settings
        self.latents = [
            None
            if p.latent is None
            else reference_latents(model.model, p.latent, f"{p.name}_latent")
            for p in prompts
        ]
        self.pairs, self.text_encoder = pair_on_model(pair, model.model)
        self.trained = trained_modules(self.pairs, settings.layers, pair)
        self.branches = {name: Branches(p.factors) for name, p in self.pairs.items()}

    def run(
        self,
        checkpoints: Path,
        on_step: Callable[[TrainingRecord], None],
        should_stop: Callable[[], bool],
        on_prepare: Callable[[int, int], None],
    ) -> ZipResult:
        """Learn the coefficients.

        Args:
            checkpoints: folder of all checkpoints; this run's is named by its inputs.
            on_step, should_stop: see `Hooks`.
            on_prepare: told how many of how many UNet evaluations the teachers have made.
        """
        settings, options = self.settings, self.settings.options
        targets = unet_targets(self.model.model)
        hooked = {targets[name]: branches for name, branches in self.branches.items()}
        with training_model(self.model, hooked) as opened:
            states, held_out = self._states(opened, on_prepare)
            before = _measure(opened, held_out)
            memory = choose_memory(opened, settings, states)
            task = self._objective(opened, states)
            after: list[Retention | None] = []

            def on_end() -> None:
                task.fold()
                after.append(_measure(opened, held_out))

            hooks = Hooks(lambda: self._merged(task).modules(), on_step, should_stop, on_end)
            folder = self._checkpoint_folder(checkpoints, opened)
            record = train(task, settings.steps, settings.learning_rate, options, hooks, folder)
            notes = [memory, f"UNet evaluations: {opened.evaluations} samples"]
        if not record.asked_to_stop:
            folder.remove()
        merged = self._merged(task)
        measured = (before, after[0]) if before and after[0] else None
        metadata = self._metadata(measured, opened.v_prediction)
        report = zip_report(merged, self.pair, record, settings, measured, notes)
        return ZipResult(replace(merged, metadata=metadata), record, report)

    def _states(
        self, opened: TrainingModel, on_prepare: Callable[[int, int], None]
    ) -> tuple[list[list[State]], list[list[State]]]:
        """Make the states to train on and the held-out ones, with their teachers' targets."""
        settings, options = self.settings, self.settings.options
        draws = min(settings.steps * options.batch * options.accumulation, POOL)
        references = [self._reference(opened, i) for i in range(2)]
        total = evaluations(references, draws, options.held_out_draws)
        opened.on_evaluation = lambda done: on_prepare(done, total)
        states, references = draw_pictures(opened, references, self._size, draws, settings.seed)
        for i, drawn in enumerate(states):
            if not drawn:
                states[i] = noised_states(opened, references, i, draws, settings.seed, _TRAINING)
        held_out = [
            noised_states(opened, references, i, options.held_out_draws, settings.seed, _HELD_OUT)
            for i in range(2)
        ]
        opened.on_evaluation = lambda done: None
        return states, held_out

    def _reference(self, opened: TrainingModel, concept: int) -> Reference:
        latents, prompt = self.latents[concept], self.prompts[concept].conditioning
        like = torch.zeros(1, *self._size, device=opened.device)
        if latents is not None:
            like = latents[:1].to(opened.device)
        positive = cond.prepare(opened.model, prompt, like)
        negative = cond.prepare(opened.model, cond.zeroed(prompt), like)
        return Reference(positive, negative, latents)

    @property
    def _size(self) -> tuple[int, int, int]:
        channels = self.model.model.latent_format.latent_channels
        return channels, self.settings.height // 8, self.settings.width // 8

    def _objective(self, opened: TrainingModel, states: list[list[State]]) -> ZipObjective:
        widths = {name: self.branches[name].width for name in self.trained}
        return ZipObjective(
            model=opened,
            branches=self.branches,
            coefficients=MergerCoefficients(widths, opened.device),
            pairs=self.pairs,
            states=(states[0], states[1]),
            settings=self.settings,
            v_prediction=opened.v_prediction,
        )

    def _merged(self, task: ZipObjective) -> MergedLoRA:
        return MergedLoRA(self.pairs, task.coefficients.detached(), self.text_encoder)

    def _checkpoint_folder(self, root: Path, opened: TrainingModel) -> CheckpointFolder:
        """Name the folder by everything the result depends on, the patched base included."""
        tensors = {
            f"base {k}": sampled(w) for k, w in opened.model.diffusion_model.named_parameters()
        }
        for name, pair in {**self.pairs, **self.text_encoder}.items():
            for half, factors in zip(("content", "style"), pair.factors, strict=True):
                if factors is not None:
                    tensors[f"{half} {name} down"] = factors.down
                    tensors[f"{half} {name} up"] = factors.scale * factors.up
        extras = []
        for prompt, latents in zip(self.prompts, self.latents, strict=True):
            context, others = prompt.conditioning[0]
            tensors[f"{prompt.name} context"] = context
            tensors |= {f"{prompt.name} {k}": v for k, v in others.items() if torch.is_tensor(v)}
            extras.append({k: v for k, v in others.items() if not torch.is_tensor(v)})
            if latents is not None:
                tensors[f"{prompt.name} latents"] = latents
        tensors["sigmas"] = opened.sampling.sigmas
        settings = asdict(self.settings) | {"extras": extras, "v": opened.v_prediction}
        settings["options"].pop("resume")
        return CheckpointFolder(root / fingerprint(settings, tensors))

    def _metadata(
        self, measured: tuple[Retention, Retention] | None, v_prediction: bool
    ) -> dict[str, str]:
        said = {
            "modelspec.prediction_type": "v" if v_prediction else "epsilon",
            "ziplora.method": "ziplora",
            "ziplora.settings": json.dumps(asdict(self.settings)),
        }
        if measured is not None:
            before, after = (asdict(r) for r in measured)
            said["ziplora.retention"] = json.dumps({"direct_merge": before, "merged": after})
        return source_metadata(self.pair.content, self.pair.style) | said


def _measure(opened: TrainingModel, held_out: list[list[State]]) -> Retention | None:
    """Compare the branches as they are now with the teachers; None without held-out states."""
    if not held_out[0]:
        return None
    return Retention(*(retention(opened.denoise, states, batch=2) for states in held_out))


def choose_memory(opened: TrainingModel, settings: ZipSettings, states: list[list[State]]) -> str:
    """Set checkpointing: `fast` keeps all activations, `low` a block's; returns the report's line.

    `auto` looks at the device's whole memory less the model, not at what is free just now: the same
    machine makes the same choice, and the same seed the same file.
    """
    memory, samples = settings.memory, 2 * settings.options.batch
    height, width = max((s.x.shape[-2:] for c in states for s in c), key=lambda hw: hw.numel())
    itemsize = compute_dtype(opened.device).itemsize
    needed = samples * _BYTES_PER_SAMPLE * (height * width / 128**2) * itemsize / 2
    whole = float(comfy.model_management.get_total_memory(opened.device))  # pyright: ignore
    room = 0.8 * whole - opened.patcher.model_size()
    opened.checkpointing = memory == "low" or (memory == "auto" and needed > room)
    chosen = "low" if opened.checkpointing else "fast"
    if memory != "auto":
        return f"memory={chosen}"
    sizes = f"about {needed / 2**30:.1f} GiB of activations, room for {room / 2**30:.1f}"
    return f"memory={chosen} (auto: {sizes})"
