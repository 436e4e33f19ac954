"""The training metadata of a LoRA file, under kohya's keys."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict

from ..files.metadata import prediction_type
from .objective import PictureSettings
from .options import DreamBoothSettings
from .report import Trained

_PRECISION = {"torch.bfloat16": "bf16", "torch.float32": "no"}


def dreambooth_metadata(trained: Trained, settings: DreamBoothSettings) -> dict[str, str]:
    """Compose the `ss_*`, `modelspec.*` and `ziplora.*` strings of a training."""
    captions = Counter(example.caption for example in trained.examples)
    trigger = settings.prompt.strip() or captions.most_common(1)[0][0]
    text_rate = settings.text_encoder_learning_rate if settings.train_text_encoder else None
    rates = {
        "learning_rate": settings.learning_rate,
        "unet_lr": settings.learning_rate,
        "text_encoder_lr": text_rate,
    }
    return {
        **picture_metadata(trained, settings, rates, captions, trigger),
        "ziplora.method": "dreambooth",
        "ziplora.settings": json.dumps(asdict(settings)),
    }


def picture_metadata(
    trained: Trained,
    settings: PictureSettings,
    rates: Mapping[str, object],
    captions: Counter[str],
    trigger: str,
) -> dict[str, str]:
    """Compose the metadata common to all trainings on pictures, under kohya's keys.

    There are no dates, paths or session ids: the same inputs give the same file, bit for bit. The
    file writer adds what describes the network and the file (`ss_network_*`, hashes, title).

    Args:
        trained: the result of the training.
        settings: the widgets.
        rates: the learning rates by kohya's names.
        captions: the number of pictures with each caption.
        trigger: the prompt that the LoRA was trained for.
    """
    options, record = settings.options, trained.record
    side = settings.resolution
    optimiser = "adamw" if options.optimiser == "auto" else options.optimiser
    batch = options.batch
    said = {
        "steps": record.step,
        "max_train_steps": settings.steps,
        **rates,
        "optimizer": optimiser,
        "lr_scheduler": options.schedule,
        "lr_warmup_steps": options.warm_up_steps,
        "max_grad_norm": options.gradient_clip,
        "batch_size_per_device": batch,
        "total_batch_size": batch * options.accumulation,
        "gradient_accumulation_steps": options.accumulation,
        "gradient_checkpointing": trained.low_memory,
        "mixed_precision": _PRECISION.get(str(trained.dtype), "no"),
        "cache_latents": True,
        "seed": settings.seed,
        "sd_model_name": trained.checkpoint or None,
        "num_train_images": len(trained.examples),
        "num_reg_images": len(trained.class_examples),
        "prior_loss_weight": settings.prior_weight,
        "min_snr_gamma": options.min_snr_gamma or None,
        "caption_dropout_rate": options.caption_dropout,
        "resolution": f"({side}, {side})",
        "enable_bucket": True,
        "bucket_info": json.dumps(_buckets(trained)),
        "tag_frequency": json.dumps({"ziplora": dict(captions)}),
    }
    return {
        **{f"ss_{name}": str(value) for name, value in said.items()},
        **prediction_type(trained.v_prediction, trained.flow),
        "modelspec.resolution": f"{side}x{side}",
        "modelspec.trigger_phrase": trigger,
        "modelspec.usage_hint": f"Prompt with: {trigger}",
    }


def _buckets(trained: Trained) -> dict[str, object]:
    """Compose kohya's record of the training sizes, `[width, height]`."""
    targets = Counter(example.views[0].frame.target for example in trained.examples)
    buckets = {
        str(n): {"resolution": [width, height], "count": count}
        for n, ((height, width), count) in enumerate(sorted(targets.items()))
    }
    return {"buckets": buckets}
