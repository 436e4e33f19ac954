"""DreamBooth training on a loaded MODEL, from pictures to a LoRA."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from ...dreambooth.metadata import dreambooth_metadata
from ...dreambooth.objective import DreamBoothObjective, TrainingExample, most_common_frame
from ...dreambooth.options import DreamBoothSettings
from ...dreambooth.report import Trained, dreambooth_report, measured
from ...lora.factors import LoRA, LoraFactors
from ...training.checkpoint import CheckpointFolder
from ...training.framing import Framing
from ...training.interface import NO_CALLBACKS, ProgressCallbacks, TrainedLoRA, TrainingRecord
from ...training.ownership import owned
from ...training.protection import attempt, composed, forgiving
from ...training.validation import refuse_below_minimum
from ..data.caption_encoding import Conditioner, encode_captions, literal_note, match_captions
from ..data.class_pictures import draw_class_pictures
from ..data.pictures import encode_pictures, split_pictures
from ..data.samples import draw_samples
from ..model.family import family_of
from ..model.identity import identify_clip, identify_model
from ..model.targets import unet_targets
from ..model.trainable_text_encoder import (
    refuse_weighted,
    text_encoder_targets,
    trainable_text_encoder,
)
from ..model.training_model import TrainingModel, training_model
from .dreambooth_inputs import TrainingInputs, picture_inputs, split_class_pictures
from .new_lora import new_lora
from .run import refuse_untrainable, train_lora, training_mode


@dataclass(frozen=True)
class DreamBoothResult:
    """The trained factors, their file's metadata, and the record and report of the training."""

    modules: Mapping[str, LoraFactors]
    metadata: Mapping[str, str]
    record: TrainingRecord
    report: str


@training_mode("Lower the resolution or batch, or set memory to low")
def train_dreambooth(
    inputs: TrainingInputs,
    settings: DreamBoothSettings,
    folder: Path,
    callbacks: ProgressCallbacks = NO_CALLBACKS,
) -> DreamBoothResult:
    """Train a LoRA on pictures; see `DreamBoothSession`.

    Args:
        inputs: the node's inputs.
        settings: the node's settings.
        folder: folder of checkpoints and class pictures.
        callbacks: the user's view and control of the training.

    Raises:
        ZipLoRAError: an input is invalid, the training fails, or memory runs out.
    """
    return DreamBoothSession(inputs, settings).run(folder, callbacks)


class DreamBoothSession:
    """One training. The constructor checks all inputs that can be checked without computing.

    Raises:
        ZipLoRAError: an input is invalid, in a way that the user can fix.
    """

    def __init__(self, inputs: TrainingInputs, settings: DreamBoothSettings) -> None:
        self.inputs, self.settings = inputs, settings
        self.notes: list[str] = []
        refuse_untrainable(inputs.model, inputs.vae, inputs.clip, only_sdxl=False)
        refuse_below_minimum(settings)
        self.pictures = split_pictures(inputs.images, "images")
        self.captions = match_captions(
            inputs.captions, settings.prompt, len(self.pictures), settings.literal_captions
        )
        if settings.literal_captions:
            self.notes += literal_note(inputs.captions)
        family = family_of(inputs.model.model)
        if family.trainers:
            self.notes.append(f"{family.name}: {family.trainers}")
        self.class_prompt = settings.class_prompt.strip()
        self.class_pictures = split_class_pictures(inputs, self.class_prompt)
        self.targets = unet_targets(inputs.model.model)
        self.lora = new_lora(inputs.model, self.targets, settings.layers, settings)
        self.text_lora, self.text_targets = None, {}
        if settings.train_text_encoder:
            refuse_weighted(inputs.clip, [*self.captions, self.class_prompt])
            self.text_targets = text_encoder_targets(inputs.clip)
            self.text_lora = new_lora(inputs.clip.patcher, self.text_targets, "all", settings)

    def run(self, root: Path, callbacks: ProgressCallbacks) -> DreamBoothResult:
        """Encode pictures and captions once, then run the training loop.

        Args:
            root: folder of checkpoints and class pictures.
            callbacks: the user's view and control of the training.
        """
        settings, inputs = self.settings, self.inputs
        callbacks = forgiving(callbacks, self.notes)
        prior = bool(self.class_prompt) and settings.prior_weight > 0
        callbacks.on_status("encoding pictures and captions")
        given = self.class_pictures if prior else []
        learned = zip(self.pictures, self.captions, strict=True)
        key = picture_inputs(inputs, settings, learned, given)
        folder = CheckpointFolder.of(key, root / "checkpoints", "DreamBooth", settings.prompt)
        examples = self._encode(self.pictures, self.captions)
        classes = self._encode(given, [self.class_prompt] * len(given))
        texts = ["", self.class_prompt, *self.captions, *self._sample_prompts()]
        encoded = encode_captions(inputs.clip, texts, inputs.model.model)
        callbacks.on_status("loading a copy of the model")
        with ExitStack() as stack:
            stack.enter_context(owned(folder.path))
            opened, encode = self._open(stack, encoded)
            if prior and not classes:
                classes = draw_class_pictures(
                    opened, (self.class_prompt, encoded[self.class_prompt]), encoded[""],
                    most_common_frame(examples), settings.class_count, settings.seed,
                    identify_model(inputs.model) | identify_clip(inputs.clip),
                    root / "class_pictures", callbacks, self.notes,
                )  # fmt: skip
            frozen = self.text_lora is None
            conditioner = Conditioner(opened.model, encode, frozen, opened.device)
            task = DreamBoothObjective(
                opened, self.lora, self.text_lora, examples, classes, conditioner, settings
            )
            trained = self._train(opened, task, folder, callbacks)
            lora = self._lora(task, trained)
        report = composed(lambda: dreambooth_report(trained, lora.modules, settings), self.notes)
        return DreamBoothResult(lora.modules, lora.metadata, trained.record, report)

    def _open(
        self, stack: ExitStack, encoded: Mapping[str, Any]
    ) -> tuple[TrainingModel, Callable[[str], Any]]:
        """Open the private copies; return the model and the function that encodes a caption."""
        encode, keep_loaded = encoded.__getitem__, []
        if self.text_lora:
            hooked = self.text_lora.by_weight(self.text_targets)
            encoder = stack.enter_context(trainable_text_encoder(self.inputs.clip, hooked))
            encode, keep_loaded = encoder.encode, [encoder.patcher]
        hooked = self.lora.by_weight(self.targets)
        return stack.enter_context(
            training_model(self.inputs.model, hooked, keep_loaded=keep_loaded)
        ), encode

    def _train(
        self,
        opened: TrainingModel,
        task: DreamBoothObjective,
        folder: CheckpointFolder,
        callbacks: ProgressCallbacks,
    ) -> Trained:
        """Run the loop, and measure the held-out loss before and after."""
        options = self.settings.options
        if options.held_out_draws:
            callbacks.on_status("measuring")
        before = attempt("measuring the loss before the training", task.held_out, self.notes, None)
        after: list[float | None] = []
        frame = Framing.drawn(*most_common_frame(task.instances).target)

        def draw() -> list[Tensor]:
            prepared = task.conditioner([(text, frame) for text in (*self._sample_prompts(), "")])
            return draw_samples(opened, prepared, frame, self.settings.seed, self.inputs.vae)

        def on_end() -> list[Tensor]:
            measure = "measuring the loss after the training"
            after.append(attempt(measure, task.held_out, self.notes, None))
            return draw() if 0 < options.sample_every <= self.settings.steps else []

        def described(trained: TrainedLoRA) -> Trained:
            given = bool(self.class_pictures)
            return Trained(**vars(trained), examples=task.instances, class_examples=task.classes,
                           class_images_connected=given)  # fmt: skip

        trained = train_lora(
            opened, task, folder, callbacks, self.notes,
            lambda so_far: self._lora(task, described(so_far)),
            draw, self._sample_prompts(), on_end,
        )  # fmt: skip
        return replace(described(trained), loss=measured(before, after))

    def _lora(self, task: DreamBoothObjective, trained: Trained) -> LoRA:
        """Return a copy of the current LoRA, with its file's metadata."""
        family = family_of(self.inputs.model.model)
        metadata = attempt(
            "describing the training for the file",
            lambda: {**family.metadata, **dreambooth_metadata(trained, self.settings)},
            self.notes, {},
        )  # fmt: skip
        return LoRA("DreamBooth", task.factors(), metadata)

    def _encode(self, pictures: Sequence[Tensor], captions: Sequence[str]) -> list[TrainingExample]:
        inputs, settings = self.inputs, self.settings
        return encode_pictures(
            inputs.vae, inputs.model.model, pictures, captions, settings.resolution, settings.mirror
        )

    def _sample_prompts(self) -> list[str]:
        return self.settings.options.samples or [self.captions[0]]
