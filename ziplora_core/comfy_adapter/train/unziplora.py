"""UnZipLoRA on a loaded MODEL, from a picture to a content LoRA and a style LoRA."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...dreambooth.objective import TrainingExample, most_common_frame
from ...dreambooth.report import Trained, measured
from ...files.merge_file import merged_metadata
from ...lora.factors import LoRA
from ...lora.merged import MergedLoRA
from ...training.branches import Gates
from ...training.checkpoint import CheckpointFolder
from ...training.framing import Framing
from ...training.interface import NO_CALLBACKS, ProgressCallbacks, TrainedLoRA, TrainingRecord
from ...training.ownership import owned
from ...training.protection import attempt, composed, forgiving
from ...training.validation import refuse_below_minimum
from ...unziplora.feature_masks import FeatureMasks, owners, schedule
from ...unziplora.metadata import unziplora_metadata
from ...unziplora.objective import UnZipLoRAObjective
from ...unziplora.options import UnZipLoRASettings
from ...unziplora.parameters import UnZipLoRAParameters
from ...unziplora.prompts import equal_prompt_warnings, three_prompts, tidied
from ...unziplora.report import UnZipLoRATrained, unziplora_report
from ..data.caption_encoding import Conditioner, encode_captions
from ..data.pictures import encode_pictures, split_pictures
from ..data.samples import STEPS, decoded, sample_noise
from ..model import conditioning as cond
from ..model.sampler import sample_latents
from ..model.targets import unet_targets
from ..model.training_model import TrainingModel, training_model
from .dreambooth_inputs import TrainingInputs, picture_inputs, split_class_pictures
from .new_lora import layer_shapes, make_room
from .run import refuse_untrainable, train_lora, training_mode

logger = logging.getLogger(__name__)

_CAPTIONS = ("joint", "content", "style")
"""What each of the sample pictures is."""


@dataclass(frozen=True)
class UnZipLoRAResult:
    """The two trained LoRAs.

    Args:
        merged: both LoRAs for one picture, mergers folded in; each half needs its own prompt.
        content, style: ordinary LoRAs, each for use without the other.
        record: the loop's record.
        report: text of the report.
    """

    merged: MergedLoRA
    content: LoRA
    style: LoRA
    record: TrainingRecord
    report: str


@training_mode("Lower the resolution or batch, or set memory to low")
def train_unziplora(
    inputs: TrainingInputs,
    settings: UnZipLoRASettings,
    root: Path,
    callbacks: ProgressCallbacks = NO_CALLBACKS,
) -> UnZipLoRAResult:
    """Train a content LoRA and a style LoRA from one picture; see `UnZipLoRASession`.

    Args:
        inputs: the node's inputs.
        settings: the node's settings.
        root: folder of all checkpoints.
        callbacks: the user's view and control of the training.

    Raises:
        ZipLoRAError: an input is invalid, the training fails, or memory runs out.
    """
    return UnZipLoRASession(inputs, settings).run(root, callbacks)


class UnZipLoRASession:
    """One training. The constructor checks all inputs that can be checked without computing.

    Args:
        inputs: the node's inputs; captions are not used, as all pictures have the joint prompt.
        settings: the node's settings.

    Raises:
        ZipLoRAError: an input is invalid, in a way that the user can fix.
    """

    def __init__(self, inputs: TrainingInputs, settings: UnZipLoRASettings) -> None:
        refuse_untrainable(inputs.model, inputs.vae, inputs.clip)
        refuse_below_minimum(settings)
        schedule(settings)
        self.notes: list[str] = []
        self.inputs, self.settings = inputs, tidied(settings)
        self.texts = three_prompts(self.settings)
        lines = [line.strip() for line in settings.options.sample_prompts.splitlines()]
        shown = zip_longest(lines[: len(self.texts)], self.texts)
        self.shown = [line or text for line, text in shown]
        self.pictures = split_pictures(inputs.images, "image")
        self.class_pictures = split_class_pictures(inputs, self.settings.class_prompt)
        self.targets = unet_targets(inputs.model.model)
        shapes = layer_shapes(inputs.model, self.targets, settings.layers, settings.rank)
        device = inputs.model.load_device
        make_room(shapes, settings.rank, device, count=2)
        self.learned = UnZipLoRAParameters(shapes, settings.rank, settings.seed, device)
        owned = settings.column_separation and settings.block_separation
        self.masks = FeatureMasks(self.learned.heights, owners(shapes) if owned else {}, device)

    def run(self, root: Path, callbacks: ProgressCallbacks) -> UnZipLoRAResult:
        """Encode pictures and prompts once, then run the training loop.

        Args:
            root: folder of all checkpoints.
            callbacks: the user's view and control of the training.
        """
        settings, inputs = self.settings, self.inputs
        callbacks = forgiving(callbacks, self.notes)
        for text in equal_prompt_warnings(settings):
            logger.warning(text)
            callbacks = _saying_first(f"WARNING: {text}", callbacks)
        callbacks.on_status("encoding pictures and prompts")
        joint = self.texts[0]
        given = self.class_pictures if settings.prior_weight > 0 else []
        learned = [(picture, joint) for picture in self.pictures]
        known = picture_inputs(inputs, settings, learned, given)
        folder = CheckpointFolder.of(known, root, "UnZipLoRA", joint)
        instances = self._encode(self.pictures, joint)
        classes = self._encode(given, settings.class_prompt)
        texts = ["", settings.class_prompt, *self.texts, *self.shown]
        encoded = encode_captions(inputs.clip, texts, inputs.model.model)
        prompts, shown = self._own_prompts(encoded), self._shown_prompts(encoded)
        callbacks.on_status("loading a copy of the model")
        hooked = {self.targets[name]: b for name, b in self.learned.branches.items()}
        with owned(folder.path), training_model(inputs.model, hooked) as opened:
            task = UnZipLoRAObjective(
                model=opened,
                learned=self.learned,
                masks=self.masks,
                instances=instances,
                classes=classes,
                conditioner=Conditioner(opened.model, encoded.__getitem__, True, opened.device),
                prompts={t: p.to(opened.device, opened.dtype) for t, p in prompts.items()},
                settings=settings,
            )
            trained = self._train(opened, task, shown, folder, callbacks)
            merged, alone = self._merged(task, trained), self._alone(task, trained)
        merged = replace(merged, origin=trained.record.origin)
        report = composed(lambda: self._report(task, trained), self.notes)
        return UnZipLoRAResult(merged, alone["content"], alone["style"], trained.record, report)

    def _own_prompts(self, encoded: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the prompts of content and style by the prompt of the model.

        With the joint prompt, each has its own prompt; with any other, both have the model's.
        """
        joint, *own = self.texts
        read = {text: [text] * 2 for text in ("", self.settings.class_prompt, *own)} | {joint: own}
        return {
            text: cond.own_prompts([encoded[o] for o in both], encoded[text])
            for text, both in read.items()
        }

    def _shown_prompts(self, encoded: Mapping[str, Any]) -> Tensor | None:
        """Return the prompts of content and style for validation pictures, if any are drawn."""
        if not self.settings.images_per_validation:
            return None
        joint, *own = (encoded[text] for text in self.shown)
        return cond.own_prompts(own, joint)

    def _train(
        self,
        opened: TrainingModel,
        task: UnZipLoRAObjective,
        shown: Tensor | None,
        folder: CheckpointFolder,
        callbacks: ProgressCallbacks,
    ) -> Trained:
        """Run the loop, and measure the held-out loss before and after."""
        settings = self.settings
        if settings.options.held_out_draws:
            callbacks.on_status("measuring")
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
                           class_images_connected=True)  # fmt: skip

        def both(trained: TrainedLoRA) -> LoRA:
            merged = self._merged(task, described(trained))
            return LoRA(self.texts[0], merged.modules(), merged_metadata(merged))

        trained = train_lora(
            opened, task, folder, callbacks, self.notes, both, draw, _CAPTIONS, on_end,
            parts=lambda trained: self._alone(task, described(trained)),
            saves=settings.saves_per_validation,
        )  # fmt: skip
        return replace(described(trained), loss=measured(before, after))

    def _report(self, task: UnZipLoRAObjective, trained: Trained) -> str:
        mergers = task.learned.mergers.flat.detach().cpu()
        return unziplora_report(
            UnZipLoRATrained(trained, task.masks.detached(), mergers), self.settings
        )

    def _merged(self, task: UnZipLoRAObjective, trained: Trained) -> MergedLoRA:
        """Return a copy of both LoRAs for one picture, with their file's metadata."""
        return replace(task.merged(), metadata=self._metadata(trained, "merged"))

    def _alone(self, task: UnZipLoRAObjective, trained: Trained) -> dict[str, LoRA]:
        """Return copies of the LoRAs for use without each other, with their files' metadata."""
        joint = self.texts[0]
        return {
            part: LoRA(f"{part} of {joint}", modules, self._metadata(trained, part))
            for part, modules in task.parts().items()
        }

    def _metadata(self, trained: Trained, part: str) -> dict[str, str]:
        """Return the metadata of a file."""
        return attempt(
            "describing the training for the files",
            lambda: unziplora_metadata(trained, self.settings, part), self.notes, {},
        )  # fmt: skip

    def _draw(self, opened: TrainingModel, task: UnZipLoRAObjective, read: Tensor) -> list[Tensor]:
        """Draw both together, content alone and style alone, from the same noise every time."""
        frame = Framing.drawn(*most_common_frame(task.instances).target)
        *prompts, nothing = task.conditioner([(text, frame) for text in (*self.shown, "")])
        noise = sample_noise(opened, frame, self.settings.seed, 0)
        both = Gates(prompts=read[None].to(opened.device, opened.dtype))
        alone = [Gates(row[None]) for row in torch.eye(2)]
        drawn: list[Tensor] = []
        for prompt, gates in zip(prompts, [both, *alone], strict=True):
            task.fold(mergers=gates is both)
            drawn.append(sample_latents(opened, [prompt], [nothing], noise, gates, STEPS))
        return [picture for (picture,) in decoded(opened, drawn, self.inputs.vae)]

    def _encode(self, pictures: Sequence[Tensor], caption: str) -> list[TrainingExample]:
        inputs, resolution = self.inputs, self.settings.resolution
        captions = [caption] * len(pictures)
        return encode_pictures(
            inputs.vae, inputs.model.model, pictures, captions, resolution, mirror=False
        )


def _saying_first(words: str, callbacks: ProgressCallbacks) -> ProgressCallbacks:
    """Wrap callbacks so that every status starts with a line of `words`."""
    return replace(callbacks, on_status=lambda text: callbacks.on_status(f"{words}\n{text}"))
