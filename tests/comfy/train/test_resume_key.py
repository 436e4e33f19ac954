"""A training finds the checkpoint of the same inputs, whatever device has rounded them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.sd
import pytest
import torch

from sandbox import tiny

from .. import helpers
from .training_nodes import EACH, SIDE, STEPS, Trainer, pack_module, picture

Change = dict[str, Any]


class FoundError(Exception):
    """Raised instead of a training; says whether there was a checkpoint to resume."""


class Rounded:
    """A CLIP or VAE of another device: the same weights, with outputs rounded to bf16."""

    def __init__(self, part: Any) -> None:
        self.part = part

    def __getattr__(self, name: str) -> Any:
        return getattr(self.part, name)

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.part.encode(pixels).bfloat16().float()

    def encode_from_tokens_scheduled(self, tokens: Any) -> Any:
        return rounded(self.part.encode_from_tokens_scheduled(tokens))


def rounded(conditioning: Any) -> Any:
    [[context, extras]] = conditioning
    pooled = extras["pooled_output"].bfloat16().float()
    return [[context.bfloat16().float(), {**extras, "pooled_output": pooled}]]


def bf16(latent: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a LATENT as from a VAE in bf16, with a small error in each value."""
    samples = latent["samples"]
    off = 1 + 1e-3 * helpers.noise(*samples.shape, seed=9)
    return {"samples": (samples * off).bfloat16().float()}


def loaded_in(dtype: torch.dtype) -> Any:
    """Load the same file as on a device that prefers this dtype."""
    model = tiny.tiny_sdxl(dtype=dtype)
    weights = tiny.tiny_sdxl().model.diffusion_model.state_dict()
    model.model.diffusion_model.load_state_dict(weights)
    model.cached_patcher_init = (lambda disable_dynamic=False: loaded_in(dtype), ())
    return model


def patched(strength: float) -> Any:
    return helpers.stock(tiny.tiny_sdxl(), (helpers.lora_tensors()[0], strength))


def other_vae() -> comfy.sd.VAE:
    vae = tiny.tiny_vae()
    with torch.no_grad():
        for weight in vae.first_stage_model.parameters():
            weight.mul_(1.02)
    return vae


def skipping() -> comfy.sd.CLIP:
    clip = tiny.tiny_clip()
    clip.clip_layer(-1)
    return clip


def brighter() -> torch.Tensor:
    """Return the same picture with a spot in it."""
    changed = picture(1).clone()
    changed[:, :8, :8] = 1.0
    return changed


def weighted(conditioning: Any) -> Any:
    """Return a prompt with one token of another strength, as (word:1.05)."""
    [[context, extras]] = conditioning
    context = context.clone()
    context[:, 5] *= 1.05
    return [[context, extras]]


def pairs(first: torch.Tensor) -> list[Any]:
    paired = pack_module("ziplora_core.comfy_adapter.train.slider_tasks").paired_pictures
    return [paired([first], [picture(2)], 1.0)]


def other_pair() -> Any:
    pack = pack_module
    read = pack("ziplora_core.files").lora_from_tensors
    content, style = (dict(tensors) for tensors in helpers.lora_tensors())
    key = sorted(key for key in style if key.endswith("lora_up.weight"))[0]
    style[key] = style[key] * 1.001
    loras = [read(t, name=f"{n}") for n, t in enumerate((content, style))]
    return pack("ziplora_core.lora.pair").LoRAPair(*loras)


def same(name: str) -> dict[str, Change]:
    """Changes of the inputs that do not affect the result, or only by rounding."""
    options = {"sample_every": 2, "sample_prompts": "a dog", "checkpoint_every": 7,
               "held_out_draws": 0, "early_stop": name == "merge"}  # fmt: skip
    shown: Change = {"options": options, "memory": "low"}
    if name in ("words", "pictures"):
        shown |= {"range": 3.0, "start_percent": 0.5}
    if name == "words":
        shown |= {"vae": other_vae()}  # it only decodes the effect
    if name == "unzip":
        shown |= {"images_per_validation": False, "validation_steps": 5}
    fp16 = {"model": loaded_in(torch.float16)}
    return {"fp16": fp16, "another device": elsewhere(name), "what is shown": shown}


def elsewhere(name: str) -> Change:
    """The same inputs on another device: base and computed values in bf16."""
    change: Change = {"model": loaded_in(torch.bfloat16)}
    if name == "merge":
        content, style = helpers.prompts(tiny.tiny_clip())
        latents = helpers.noise(1, 4, 8, 8, seed=1), helpers.noise(1, 4, 8, 8, seed=2)
        drawn = [bf16({"samples": 7.0 * latent}) for latent in latents]
        return {
            **change, "content_latent": drawn[0], "style_latent": drawn[1],
            "content_conditioning": rounded(content), "style_conditioning": rounded(style),
        }  # fmt: skip
    change |= {"clip": Rounded(tiny.tiny_clip()), "vae": Rounded(tiny.tiny_vae())}
    decoded = [(picture(1) + 1e-3 * helpers.noise(1, SIDE, SIDE, 3).clamp(-1, 1)).clamp(0, 1)]
    names = {"unzip": "image", "dreambooth": "images"}
    return change | ({names[name]: decoded} if name in names else {})


def others(name: str) -> dict[str, Change]:
    """Changes of the inputs that change the result."""
    rate = "content_learning_rate" if name == "unzip" else "learning_rate"
    changes: dict[str, Change] = {
        "seed": {"seed": 1},
        "learning rate": {rate: 2e-2},
        "base": {"model": tiny.tiny_sdxl(seed=3)},
        "lora on the base": {"model": patched(0.05)},
        "prediction": {"model": tiny.tiny_sdxl("v")},
        "optimiser": {"options": {"optimiser": "sgd"}},
    }
    if name == "merge":
        clip = tiny.tiny_clip()
        content, _ = helpers.prompts(clip)
        return {
            **changes,
            "early stop": {"options": {"early_stop": False}},
            "prompt": {"content_conditioning": helpers.encode(clip, "a photo of sks cat")},
            "weight of a word": {"content_conditioning": weighted(content)},
            "picture": {"style_latent": {"samples": 7.0 * helpers.noise(1, 4, 8, 8, seed=3)}},
            "no picture": {"style_latent": None},
            "lora": {"pair": other_pair()},
        }
    words = {"dreambooth": "prompt", "unzip": "style_prompt"}.get(name, "positive")
    changes |= {
        "prompt": {words: "a drawing of a cat in sketch style"},
        "clip": {"clip": tiny.tiny_clip(seed=1)},
        "clip skip": {"clip": skipping()},
    }
    if name == "words":
        start = {"start_lora": helpers.lora_tensors()[1]}
        return changes | {"start": start}
    changes["vae"] = {"vae": other_vae()}
    spotted = {"dreambooth": {"images": [brighter()]}, "unzip": {"image": [brighter()]},
               "pictures": {"pairs": pairs(brighter())}}  # fmt: skip
    return changes | {"picture": spotted[name]}


def stopped(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train one step and leave a checkpoint."""
    stops = iter([False, True])
    with monkeypatch.context() as stopping:
        run = pack_module("ziplora_core.training.run_history").Run
        stopping.setattr(run, "take_stop", lambda self: next(stops))
        assert f"1 of {STEPS} steps" in trainer.run().report
    assert len(trainer.checkpoints()) == 1


def finds(trainer: Trainer, monkeypatch: pytest.MonkeyPatch, change: Change) -> bool:
    """Return whether the node finds a checkpoint, without training."""
    kind = pack_module("ziplora_core.training.checkpoint").CheckpointFolder
    real = kind.of

    def of(*where: Any) -> Any:
        raise FoundError(real(*where).state_file.exists())

    with monkeypatch.context() as looking:
        looking.setattr(kind, "of", of)
        with pytest.raises(FoundError) as found:
            trainer.run(**change)
    return found.value.args[0]


@pytest.mark.parametrize("changes", [same, others])
@pytest.mark.parametrize("trainer", EACH, indirect=True)
def test_checkpoint_is_found_by_the_inputs_and_by_nothing_else(
    changes: Callable[[str], dict[str, Change]],
    trainer: Trainer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stopped(trainer, monkeypatch)
    made = changes(trainer.name)
    found = {name: finds(trainer, monkeypatch, change) for name, change in made.items()}
    assert found == dict.fromkeys(made, changes is same)


@pytest.mark.parametrize("trainer", EACH, indirect=True)
def test_training_goes_on_with_what_another_device_made_of_the_same_inputs(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped(trainer, monkeypatch)
    found = trainer.run(**elsewhere(trainer.name))
    assert "resumed at 1" in found.report and f"{STEPS} of {STEPS} steps" in found.report
    assert found.loras and trainer.checkpoints() == []


@pytest.mark.parametrize("trainer", ["merge"], indirect=True)
def test_other_prompts_keep_their_own_checkpoints_beside_each_other(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the conditioning differs."""
    stopped(trainer, monkeypatch)
    change = {"content_conditioning": helpers.encode(tiny.tiny_clip(), "a photo of sks cat")}
    assert "resumed" not in trainer.run(**change).report
    assert len(trainer.checkpoints()) == 1
    assert "resumed at 1" in trainer.run().report


@pytest.mark.parametrize("trainer", ["dreambooth"], indirect=True)
def test_class_pictures_are_found_by_the_inputs(
    trainer: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []
    module = pack_module("ziplora_core.comfy_adapter.data.class_pictures")
    real = module.sample_latents

    def draw(*args: Any) -> Any:
        drawn.append(1)
        return real(*args)

    def trains(*_args: Any) -> Any:
        raise FoundError

    monkeypatch.setattr(module, "sample_latents", draw)
    monkeypatch.setattr(trainer.session, "train_lora", trains)
    rehearsed = {"class_prompt": "a photo of a dog", "class_count": 1}
    counts = []
    for change in (
        {}, {"model": loaded_in(torch.bfloat16)}, {"clip": Rounded(tiny.tiny_clip())},
        {"clip": tiny.tiny_clip(seed=1)}, {"model": patched(0.05)}, {"seed": 1},
        {"class_prompt": "a photo of a cat"},
    ):  # fmt: skip
        with pytest.raises(FoundError):
            trainer.run(options={"held_out_draws": 0}, **rehearsed | change)
        counts.append(len(drawn))
    assert counts == [1, 1, 1, 2, 3, 4, 5]
