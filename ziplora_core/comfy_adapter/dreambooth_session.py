"""DreamBooth training on a loaded MODEL, from pictures to a LoRA: the steps in their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..branches import Branches
from ..checkpoint import CheckpointFolder, fingerprint
from ..dreambooth import DreamBoothObjective, Example, most_common_frame
from ..dreambooth_report import Trained, dreambooth_report
from ..errors import problem
from ..files.training_metadata import training_metadata
from ..framing import Framing
from ..layers import choose_layers
from ..lora import LoraFactors
from ..lora_parameters import LoRAParameters, full_width
from ..options import DreamBoothSettings
from ..states import generator
from ..training import Hooks, TrainingRecord, Watch, train
from .captions import Conditioner, encode_captions, match_captions
from .class_pictures import draw_class_pictures
from .memory import PeakMemory, plan_memory
from .pairs import refuse_other_than_sdxl
from .pictures import encode_pictures, split_pictures
from .private_copy import refuse_patched
from .samples import draw_samples
from .targets import unet_targets
from .text_encoder import text_encoder_targets, trainable_text_encoder
from .training_model import TrainingModel, training_model

_UNWATCHED = Watch()
_UNET, _TEXT = 17, 19  # where the factors start: purposes of a generator
_WITHOUT_EFFECT = ("resume", "checkpoint_every", "held_out_draws", "sample_every", "sample_prompts")
"""Options that a result does not depend on."""


@dataclass(frozen=True)
class Studio:
    """What a training takes from the canvas beside its settings.

    Args:
        model, clip, vae: of the checkpoint; none of them is changed.
        images: batches `(b, h, w, 3)` in 0…1, of any sizes.
        captions: one text a picture, or one text with a line for each; empty for the prompt alone.
        class_images: pictures of the class; None to have them drawn.
    """

    model: Any
    clip: Any
    vae: Any
    images: Sequence[Tensor]
    captions: Sequence[str] = ()
    class_images: Sequence[Tensor] | None = None


@dataclass(frozen=True)
class DreamBoothResult:
    modules: Mapping[str, LoraFactors]
    metadata: Mapping[str, str]
    record: TrainingRecord
    report: str


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
        refuse_patched(studio.model)
        refuse_other_than_sdxl(studio.model.model)
        self.pictures = split_pictures(studio.images, "images")
        self.captions = match_captions(studio.captions, settings.prompt, len(self.pictures))
        self.class_pictures = _check_class(studio, settings)
        self.targets = unet_targets(studio.model.model)
        self.lora = self._parameters(studio.model, self.targets, settings.layers, _UNET)
        self.text_lora, self.text_targets = None, {}
        if settings.train_text_encoder:
            self.text_targets = text_encoder_targets(studio.clip)
            self.text_lora = self._parameters(studio.clip.patcher, self.text_targets, "all", _TEXT)

    @property
    def prior(self) -> bool:
        return bool(self.settings.class_prompt.strip()) and self.settings.prior_weight > 0

    def run(self, root: Path, watch: Watch) -> DreamBoothResult:
        """Train: pictures and captions once, then the loop.

        Args:
            root: folder of checkpoints and class pictures.
            watch: who follows it.
        """
        settings = self.settings
        examples = self._encode(self.pictures, self.captions)
        classes = self._encode(
            self.class_pictures, [settings.class_prompt] * len(self.class_pictures)
        )
        encoded = encode_captions(
            self.studio.clip, [*self._prompts(), *self.captions], self.studio.model.model
        )
        with ExitStack() as stack:
            text_branches = _branches(self.text_lora)
            hooked = {self.text_targets[name]: b for name, b in text_branches.items()}
            encoder = None
            if self.text_lora:
                encoder = stack.enter_context(trainable_text_encoder(self.studio.clip, hooked))
            beside = [encoder.patcher] if encoder else []
            branches = _branches(self.lora)
            hooked = {self.targets[name]: b for name, b in branches.items()}
            opened = stack.enter_context(training_model(self.studio.model, hooked, beside=beside))
            if self.prior and not classes:
                classes = self._draw_classes(opened, encoded, examples, root, watch)
            encode = encoder.encode if encoder else encoded.__getitem__
            conditioner = Conditioner(opened.model, encode, encoder is None, opened.device)
            task = DreamBoothObjective(
                opened, self.lora, branches, self.text_lora, text_branches, examples, classes,
                conditioner, settings,
            )  # fmt: skip
            folder = self._checkpoint_folder(root, opened, task, encoded)
            trained = self._train(opened, task, beside, folder, watch)
        if not trained.record.asked_to_stop:
            folder.remove()
        metadata = training_metadata(trained, settings)
        return DreamBoothResult(
            trained.modules, metadata, trained.record, dreambooth_report(trained, settings)
        )

    def _train(
        self,
        opened: TrainingModel,
        task: DreamBoothObjective,
        beside: list[Any],
        folder: CheckpointFolder,
        watch: Watch,
    ) -> Trained:
        """Run the loop, with its measurements before and after."""
        settings, options = self.settings, self.settings.options
        passes = options.batch * (2 if task.classes else 1)
        largest = max(_sizes(task), key=lambda hw: hw[0] * hw[1])
        plan = plan_memory(opened, settings.memory, passes, largest, task.parameters)
        watch.on_plan(str(plan))
        peak = PeakMemory(opened.device)
        before, after = task.held_out(), []

        def on_step(record: TrainingRecord) -> None:
            peak.look()
            watch.on_step(record)
            if options.sample_every and record.step % options.sample_every == 0:
                self._draw_samples(opened, task, beside, record.step, watch)

        hooks = Hooks(
            task.factors, on_step, watch.should_stop, lambda: after.append(task.held_out())
        )
        record = train(task, settings.steps, options, hooks, folder)
        return Trained(
            modules=task.factors(),
            record=record,
            examples=task.instances,
            class_examples=task.classes,
            classes_given=bool(self.class_pictures),
            loss=None if before is None or not after else (before, after[0]),
            v_prediction=opened.v_prediction,
            dtype=opened.dtype,
            memory=(str(plan), str(peak)),
            evaluations=opened.evaluations,
        )

    def _encode(self, pictures: Sequence[Tensor], captions: Sequence[str]) -> list[Example]:
        studio, settings = self.studio, self.settings
        return encode_pictures(
            studio.vae, studio.model.model, pictures, captions, settings.resolution, settings.mirror
        )

    def _prompts(self) -> list[str]:
        """Everything beside the captions that is encoded: class, samples, and nothing."""
        return ["", self.settings.class_prompt.strip(), *self._sample_prompts()]

    def _sample_prompts(self) -> list[str]:
        lines = self.settings.options.sample_prompts.splitlines()
        return [line.strip() for line in lines if line.strip()] or [self.captions[0]]

    def _draw_classes(
        self,
        opened: TrainingModel,
        encoded: Mapping[str, Any],
        examples: Sequence[Example],
        root: Path,
        watch: Watch,
    ) -> list[Example]:
        settings, prompt = self.settings, self.settings.class_prompt.strip()
        return draw_class_pictures(
            opened, (prompt, encoded[prompt]), encoded[""], most_common_frame(examples),
            settings.class_count, settings.seed, root / "class_pictures", watch.on_prepare,
        )  # fmt: skip

    def _draw_samples(
        self,
        opened: TrainingModel,
        task: DreamBoothObjective,
        beside: Sequence[Any],
        step: int,
        watch: Watch,
    ) -> None:
        """Show what the LoRA draws now, from the same noise every time."""
        task.fold()
        frame = Framing.drawn(*most_common_frame(task.instances).target)
        with torch.no_grad():
            prepared = task.conditioner([(text, frame) for text in (*self._sample_prompts(), "")])
        watch.on_samples(
            step, draw_samples(opened, prepared, frame, self.settings.seed, self.studio.vae, beside)
        )

    def _checkpoint_folder(
        self,
        root: Path,
        opened: TrainingModel,
        task: DreamBoothObjective,
        encoded: Mapping[str, Any],
    ) -> CheckpointFolder:
        """Name the folder by everything the result depends on, the patched base included."""
        tensors = opened.fingerprint()
        shown: list[Any] = []
        for term, examples in (("picture", task.instances), ("class", task.classes)):
            for n, example in enumerate(examples):
                for m, view in enumerate(example.views):
                    tensors[f"{term} {n} {m} mean"] = view.mean
                    tensors[f"{term} {n} {m} std"] = view.std
                    shown.append([term, example.caption, asdict(view.frame)])
        for caption in {example.caption for example in (*task.instances, *task.classes)}:
            [[context, extras]] = encoded[caption]
            tensors[f"caption {caption}"] = context
            tensors[f"pooled {caption}"] = extras["pooled_output"]
        settings = asdict(self.settings) | {"shown": shown, "v": opened.v_prediction}
        for name in _WITHOUT_EFFECT:
            settings["options"].pop(name)
        return CheckpointFolder(root / "checkpoints" / fingerprint(settings, tensors))

    def _parameters(
        self, patcher: Any, targets: Mapping[str, str], layers: str, purpose: int
    ) -> LoRAParameters:
        """Make the new LoRA of a layer choice.

        Raises:
            ZipLoRAError: the rank is above the width of most of the layers.
        """
        settings, weights = self.settings, patcher.model.state_dict()
        shapes = {name: tuple(weights[key].shape) for name, key in targets.items()}
        chosen = choose_layers(layers, [(name, len(shape) - 2) for name, shape in shapes.items()])
        narrow = [name for name in chosen if full_width(shapes[name]) < settings.rank]
        if 2 * len(narrow) > len(chosen):
            width = full_width(shapes[narrow[0]])
            raise problem(
                "rank",
                found=f"{settings.rank}, above the width of {len(narrow)} of {len(chosen)} layers "
                f"({narrow[0]}: {width})",
                expected="at most the width of the layers",
                advice=f"Set rank to {width} or less; 64 is the paper's, 4 to 32 are usual.",
            )
        rng = generator(settings.seed, purpose)
        chosen_shapes = {name: shapes[name] for name in chosen}
        return LoRAParameters(
            chosen_shapes, settings.rank, settings.alpha, rng, patcher.load_device
        )


def _branches(lora: LoRAParameters | None) -> dict[str, Branches]:
    if lora is None:
        return {}
    with torch.no_grad():
        return {name: Branches([factors]) for name, factors in lora.factors().items()}


def _sizes(task: DreamBoothObjective) -> list[tuple[int, int]]:
    """Latent sizes that occur."""
    examples = (*task.instances, *task.classes)
    return [(view.mean.shape[1], view.mean.shape[2]) for e in examples for view in e.views]


def _check_class(studio: Studio, settings: DreamBoothSettings) -> list[Tensor]:
    """Take the class pictures apart, if there are any.

    Raises:
        ZipLoRAError: class pictures without a class prompt.
    """
    if studio.class_images is None:
        return []
    if not settings.class_prompt.strip():
        raise problem(
            "class_prompt",
            found="nothing, but class_images are connected",
            expected="what the class pictures show, e.g. 'a photo of a dog'",
            advice="Write the class prompt, or disconnect class_images.",
        )
    return split_pictures(studio.class_images, "class_images")
