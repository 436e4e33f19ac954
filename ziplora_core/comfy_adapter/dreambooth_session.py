"""DreamBooth training on a loaded MODEL, from pictures to a LoRA: the steps in their order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..checkpoint import CheckpointFolder
from ..dreambooth import DreamBoothObjective, Example, most_common_frame
from ..dreambooth_metadata import dreambooth_metadata
from ..dreambooth_report import Trained, dreambooth_report, measured
from ..framing import Framing
from ..keeping import attempt, composed, forgiving
from ..limits import refuse_below_least
from ..lora import LoRA, LoraFactors
from ..options import DreamBoothSettings
from ..trainable import TrainedLoRA, TrainingRecord, Watch
from .captions import Conditioner, encode_captions, match_captions
from .class_pictures import draw_class_pictures
from .dreambooth_inputs import Studio, picture_inputs, split_class_pictures
from .free_memory import memory_advice
from .loaded_inputs import of_clip, of_model
from .lora_training import train_lora
from .new_lora import new_lora
from .pairs import refuse_other_than_sdxl
from .pictures import encode_pictures, refuse_other_vae, split_pictures
from .private_copy import refuse_patched
from .samples import draw_samples
from .targets import unet_targets
from .text_encoder import refuse_weighted, text_encoder_targets, trainable_text_encoder
from .training_model import TrainingModel, training_model

_UNWATCHED = Watch()


@dataclass(frozen=True)
class DreamBoothResult:
    modules: Mapping[str, LoraFactors]
    metadata: Mapping[str, str]
    record: TrainingRecord
    report: str


@memory_advice("Lower the resolution or batch, or set memory to low")
def train_dreambooth(
    studio: Studio, settings: DreamBoothSettings, folder: Path, watch: Watch = _UNWATCHED
) -> DreamBoothResult:
    """Train a LoRA on pictures; see `DreamBoothSession`. `folder` holds checkpoints and class
    pictures. ComfyUI runs nodes in inference mode, whose tensors autograd refuses."""
    with torch.inference_mode(False), torch.enable_grad():
        return DreamBoothSession(studio, settings).run(folder, watch)


class DreamBoothSession:
    """One training. Making it checks everything that needs no computing.

    Raises:
        ZipLoRAError: anything about the inputs that a person can put right.
    """

    def __init__(self, studio: Studio, settings: DreamBoothSettings) -> None:
        self.studio, self.settings = studio, settings
        self.notes: list[str] = []
        refuse_patched(studio.model)
        refuse_other_than_sdxl(studio.model.model)
        refuse_other_vae(studio.vae, studio.model.model)
        refuse_below_least(settings)
        self.pictures = split_pictures(studio.images, "images")
        self.captions = match_captions(studio.captions, settings.prompt, len(self.pictures))
        self.class_prompt = settings.class_prompt.strip()
        self.class_pictures = split_class_pictures(studio, self.class_prompt)
        self.targets = unet_targets(studio.model.model)
        self.lora = new_lora(studio.model, self.targets, settings.layers, settings)
        self.text_lora, self.text_targets = None, {}
        if settings.train_text_encoder:
            refuse_weighted(studio.clip, [*self.captions, self.class_prompt])
            self.text_targets = text_encoder_targets(studio.clip)
            self.text_lora = new_lora(studio.clip.patcher, self.text_targets, "all", settings)

    def run(self, root: Path, watch: Watch) -> DreamBoothResult:
        """Train: pictures and captions once, then the loop.

        Args:
            root: folder of checkpoints and class pictures.
            watch: who follows it.
        """
        settings, studio = self.settings, self.studio
        watch = forgiving(watch, self.notes)
        prior = bool(self.class_prompt) and settings.prior_weight > 0
        watch.on_status("encoding pictures and captions")
        given = self.class_pictures if prior else []
        learned = zip(self.pictures, self.captions, strict=True)
        inputs = picture_inputs(studio, settings, learned, given)
        folder = CheckpointFolder.of(inputs, root / "checkpoints")
        examples = self._encode(self.pictures, self.captions)
        classes = self._encode(given, [self.class_prompt] * len(given))
        texts = ["", self.class_prompt, *self.captions, *self._sample_prompts()]
        encoded = encode_captions(studio.clip, texts, studio.model.model)
        watch.on_status("loading a copy of the model")
        with ExitStack() as stack:
            opened, encode = self._open(stack, encoded)
            if prior and not classes:
                classes = draw_class_pictures(
                    opened, (self.class_prompt, encoded[self.class_prompt]), encoded[""],
                    most_common_frame(examples), settings.class_count, settings.seed,
                    of_model(studio.model) | of_clip(studio.clip), root / "class_pictures", watch,
                )  # fmt: skip
            frozen = self.text_lora is None
            conditioner = Conditioner(opened.model, encode, frozen, opened.device)
            task = DreamBoothObjective(
                opened, self.lora, self.text_lora, examples, classes, conditioner, settings
            )
            trained = self._train(opened, task, folder, watch)
            lora = self._lora(task, trained)
        report = composed(lambda: dreambooth_report(trained, lora.modules, settings), self.notes)
        return DreamBoothResult(lora.modules, lora.metadata, trained.record, report)

    def _open(
        self, stack: ExitStack, encoded: Mapping[str, Any]
    ) -> tuple[TrainingModel, Callable[[str], Any]]:
        """Open the private copies; returns the model, and what encodes a caption from now on."""
        encode, beside = encoded.__getitem__, []
        if self.text_lora:
            hooked = self.text_lora.by_weight(self.text_targets)
            encoder = stack.enter_context(trainable_text_encoder(self.studio.clip, hooked))
            encode, beside = encoder.encode, [encoder.patcher]
        hooked = self.lora.by_weight(self.targets)
        return stack.enter_context(training_model(self.studio.model, hooked, beside=beside)), encode

    def _train(
        self,
        opened: TrainingModel,
        task: DreamBoothObjective,
        folder: CheckpointFolder,
        watch: Watch,
    ) -> Trained:
        """Run the loop, with its measurements before and after."""
        options = self.settings.options
        if options.held_out_draws:
            watch.on_status("measuring")
        before = attempt("measuring the loss before the training", task.held_out, self.notes, None)
        after: list[float | None] = []
        frame = Framing.drawn(*most_common_frame(task.instances).target)

        def draw() -> list[Tensor]:
            prepared = task.conditioner([(text, frame) for text in (*self._sample_prompts(), "")])
            return draw_samples(opened, prepared, frame, self.settings.seed, self.studio.vae)

        def on_end() -> list[Tensor]:
            measure = "measuring the loss after the training"
            after.append(attempt(measure, task.held_out, self.notes, None))
            return draw() if 0 < options.sample_every <= self.settings.steps else []

        def described(trained: TrainedLoRA) -> Trained:
            given = bool(self.class_pictures)
            return Trained(**vars(trained), examples=task.instances, class_examples=task.classes,
                           classes_given=given)  # fmt: skip

        trained = train_lora(
            opened, task, folder, watch, self.notes,
            lambda so_far: self._lora(task, described(so_far)), draw, on_end,
        )  # fmt: skip
        return replace(described(trained), loss=measured(before, after))

    def _lora(self, task: DreamBoothObjective, trained: Trained) -> LoRA:
        """Copy the LoRA out as it is, with what its file says."""
        metadata = attempt(
            "describing the training for the file",
            lambda: dreambooth_metadata(trained, self.settings), self.notes, {},
        )  # fmt: skip
        return LoRA("DreamBooth", task.factors(), metadata)

    def _encode(self, pictures: Sequence[Tensor], captions: Sequence[str]) -> list[Example]:
        studio, settings = self.studio, self.settings
        return encode_pictures(
            studio.vae, studio.model.model, pictures, captions, settings.resolution, settings.mirror
        )

    def _sample_prompts(self) -> list[str]:
        return self.settings.options.samples or [self.captions[0]]
