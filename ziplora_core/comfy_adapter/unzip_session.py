"""UnZipLoRA on a loaded MODEL, from a picture to its content LoRA and its style LoRA."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..branches import Gates
from ..checkpoint import CheckpointFolder
from ..dreambooth import Example, most_common_frame
from ..dreambooth_report import Trained, measured
from ..files.merged import merged_metadata
from ..framing import Framing
from ..keeping import attempt, composed, forgiving
from ..limits import refuse_below_least
from ..lora import LoRA
from ..merge import MergedLoRA
from ..options import UnZipSettings
from ..trainable import TrainedLoRA, TrainingRecord, Watch
from ..unzip import UnZipObjective
from ..unzip_columns import Columns, owners, schedule
from ..unzip_parameters import UnZipParameters
from ..unzip_prompts import same_prompts, three_prompts, tidied
from ..unzip_report import UnZipped, unzip_metadata, unzip_report
from . import conditioning as cond
from .captions import Conditioner, encode_captions
from .dreambooth_inputs import Studio, picture_inputs, split_class_pictures
from .euler import draw_latents
from .free_memory import memory_advice
from .lora_training import train_lora
from .new_lora import layer_shapes
from .pairs import refuse_other_than_sdxl
from .pictures import encode_pictures, refuse_other_vae, split_pictures
from .private_copy import refuse_patched
from .samples import STEPS, decoded, sample_noise
from .targets import unet_targets
from .training_model import TrainingModel, training_model

logger = logging.getLogger(__name__)

_UNWATCHED = Watch()


@dataclass(frozen=True)
class UnZipResult:
    """What came out.

    Args:
        merged: both for one picture, mergers folded in; each half wants its own prompt.
        content, style: each for use without the other, as any LoRA.
    """

    merged: MergedLoRA
    content: LoRA
    style: LoRA
    record: TrainingRecord
    report: str


@memory_advice("Lower the resolution or batch, or set memory to low")
def train_unzip(
    studio: Studio, settings: UnZipSettings, root: Path, watch: Watch = _UNWATCHED
) -> UnZipResult:
    """Take a picture apart; see `UnZipSession`. `root` holds checkpoints. ComfyUI runs nodes in
    inference mode, whose tensors autograd refuses."""
    with torch.inference_mode(False), torch.enable_grad():
        return UnZipSession(studio, settings).run(root, watch)


class UnZipSession:
    """One training. Making it checks everything that needs no computing.

    Args:
        studio: captions are not used: all pictures have the joint prompt.
        settings: the node's.

    Raises:
        ZipLoRAError: anything about the inputs that a person can put right.
    """

    def __init__(self, studio: Studio, settings: UnZipSettings) -> None:
        refuse_patched(studio.model)
        refuse_other_than_sdxl(studio.model.model)
        refuse_other_vae(studio.vae, studio.model.model)
        refuse_below_least(settings)
        schedule(settings)
        self.notes: list[str] = []
        self.studio, self.settings = studio, tidied(settings)
        self.texts = three_prompts(self.settings)
        lines = [line.strip() for line in settings.options.sample_prompts.splitlines()]
        shown = zip_longest(lines[: len(self.texts)], self.texts)
        self.shown = [line or text for line, text in shown]
        self.pictures = split_pictures(studio.images, "image")
        self.class_pictures = split_class_pictures(studio, self.settings.class_prompt)
        self.targets = unet_targets(studio.model.model)
        shapes = layer_shapes(studio.model, self.targets, settings.layers, settings.rank)
        device = studio.model.load_device
        self.learned = UnZipParameters(shapes, settings.rank, settings.seed, device)
        owned = settings.column_separation and settings.block_separation
        self.columns = Columns(self.learned.heights, owners(shapes) if owned else {}, device)

    def run(self, root: Path, watch: Watch) -> UnZipResult:
        """Train: pictures and prompts once, then the loop.

        Args:
            root: folder of all checkpoints.
            watch: who follows it.
        """
        settings, studio = self.settings, self.studio
        watch = forgiving(watch, self.notes)
        for text in same_prompts(settings):
            logger.warning(text)
            watch = _saying_first(f"WARNING: {text}", watch)
        watch.on_status("encoding pictures and prompts")
        joint = self.texts[0]
        given = self.class_pictures if settings.prior_weight > 0 else []
        learned = [(picture, joint) for picture in self.pictures]
        folder = CheckpointFolder.of(picture_inputs(studio, settings, learned, given), root)
        instances = self._encode(self.pictures, joint)
        classes = self._encode(given, settings.class_prompt)
        texts = ["", settings.class_prompt, *self.texts, *self.shown]
        encoded = encode_captions(studio.clip, texts, studio.model.model)
        prompts, shown = self._own_prompts(encoded), self._shown_prompts(encoded)
        watch.on_status("loading a copy of the model")
        hooked = {self.targets[name]: b for name, b in self.learned.branches.items()}
        with training_model(studio.model, hooked) as opened:
            task = UnZipObjective(
                model=opened,
                learned=self.learned,
                columns=self.columns,
                instances=instances,
                classes=classes,
                conditioner=Conditioner(opened.model, encoded.__getitem__, True, opened.device),
                prompts={t: p.to(opened.device, opened.dtype) for t, p in prompts.items()},
                settings=settings,
            )
            trained = self._train(opened, task, shown, folder, watch)
            merged, alone = self._merged(task, trained), self._alone(task, trained)
        report = composed(lambda: self._report(task, trained), self.notes)
        return UnZipResult(merged, alone["content"], alone["style"], trained.record, report)

    def _own_prompts(self, encoded: Mapping[str, Any]) -> dict[str, Tensor]:
        """What content and style read, by what the model itself reads: each its own prompt beside
        the joint one, and the same prompt as the model everywhere else."""
        joint, *own = self.texts
        read = {text: [text] * 2 for text in ("", self.settings.class_prompt)} | {joint: own}
        return {
            text: cond.own_prompts([encoded[o] for o in both], encoded[text])
            for text, both in read.items()
        }

    def _shown_prompts(self, encoded: Mapping[str, Any]) -> Tensor | None:
        """What they read in validation pictures; None when none are drawn."""
        if not self.settings.images_per_validation:
            return None
        joint, *own = (encoded[text] for text in self.shown)
        return cond.own_prompts(own, joint)

    def _train(
        self,
        opened: TrainingModel,
        task: UnZipObjective,
        shown: Tensor | None,
        folder: CheckpointFolder,
        watch: Watch,
    ) -> Trained:
        """Run the loop, with its measurements before and after."""
        settings = self.settings
        if settings.options.held_out_draws:
            watch.on_status("measuring")
        before = attempt(
            "measuring the loss before the training", lambda: task.held_out(branches=False),
            self.notes, None,
        )  # fmt: skip
        after: list[float | None] = []

        def draw() -> list[Tensor]:
            return [] if shown is None else self._draw(opened, task, shown)

        def on_end() -> list[Tensor]:
            measure = "measuring the loss after the training"
            after.append(attempt(measure, task.held_out, self.notes, None))
            return draw()

        def described(trained: TrainedLoRA) -> Trained:
            return Trained(**vars(trained), examples=task.instances, class_examples=task.classes,
                           classes_given=True)  # fmt: skip

        def both(trained: TrainedLoRA) -> LoRA:
            merged = self._merged(task, described(trained))
            return LoRA(self.texts[0], merged.modules(), merged_metadata(merged))

        trained = train_lora(
            opened, task, folder, watch, self.notes, both, draw, on_end,
            parts=lambda trained: self._alone(task, described(trained)),
            saves=settings.saves_per_validation,
        )  # fmt: skip
        return replace(described(trained), loss=measured(before, after))

    def _report(self, task: UnZipObjective, trained: Trained) -> str:
        mergers = task.learned.mergers.flat.detach().cpu()
        return unzip_report(UnZipped(trained, task.columns.detached(), mergers), self.settings)

    def _merged(self, task: UnZipObjective, trained: Trained) -> MergedLoRA:
        """Copy both out for one picture, with what their file says."""
        return replace(task.merged(), metadata=self._metadata(trained, "merged"))

    def _alone(self, task: UnZipObjective, trained: Trained) -> dict[str, LoRA]:
        """Copy each out for use without the other, with what its file says."""
        joint = self.texts[0]
        return {
            part: LoRA(f"{part} of {joint}", modules, self._metadata(trained, part))
            for part, modules in task.parts().items()
        }

    def _metadata(self, trained: Trained, part: str) -> dict[str, str]:
        """What a file says of its training."""
        return attempt(
            "describing the training for the files",
            lambda: unzip_metadata(trained, self.settings, part), self.notes, {},
        )  # fmt: skip

    def _draw(self, opened: TrainingModel, task: UnZipObjective, read: Tensor) -> list[Tensor]:
        """Draw the joint picture, content alone and style alone, from the same noise every time."""
        frame = Framing.drawn(*most_common_frame(task.instances).target)
        *prompts, nothing = task.conditioner([(text, frame) for text in (*self.shown, "")])
        noise = sample_noise(opened, frame, self.settings.seed, 0)
        both = Gates(prompts=read[None].to(opened.device, opened.dtype))
        alone = [Gates(row[None]) for row in torch.eye(2)]
        drawn: list[Tensor] = []
        for prompt, gates in zip(prompts, [both, *alone], strict=True):
            task.fold(mergers=gates is both)
            drawn.append(draw_latents(opened, [prompt], [nothing], noise, gates, STEPS))
        return [picture for (picture,) in decoded(opened, drawn, self.studio.vae)]

    def _encode(self, pictures: Sequence[Tensor], caption: str) -> list[Example]:
        studio, resolution = self.studio, self.settings.resolution
        captions = [caption] * len(pictures)
        return encode_pictures(
            studio.vae, studio.model.model, pictures, captions, resolution, mirror=False
        )


def _saying_first(words: str, watch: Watch) -> Watch:
    """Put words above all that is said of what is going on."""
    return replace(watch, on_status=lambda text: watch.on_status(f"{words}\n{text}"))
