"""The miniature SDXL: its files, its training loop, and its pictures."""

from __future__ import annotations

from pathlib import Path

import comfy.model_base
import pytest
import torch

from miniworld import checkpoint, gauge, loop, probes, train_model
from miniworld.checkpoint import read, ready_checkpoint, write_checkpoint
from miniworld.data import draw_pictures
from miniworld.errors import MiniWorldError
from miniworld.latents import latents_of, new_vae, quarter
from miniworld.muon import Muon, orthogonal
from miniworld.network import TrainedText, Vocabulary, new_text_encoders
from miniworld.parts import Parts, load_parts
from miniworld.probe_files import PROBES, load_probes
from miniworld.scenes import Scene, render
from miniworld.styles import Style
from miniworld.train_model import ModelTraining
from miniworld.train_text import STATED, stated
from miniworld.world import words
from quality.measure import overlaps

LIMIT = 25 * 10**6
SCHEDULE = loop.Schedule(4, 1e-3, 1e-4, warm_up=2)


@pytest.fixture(scope="module")
def parts() -> Parts:
    return load_parts()


@pytest.fixture(scope="module")
def seeing() -> dict[str, probes.Probe]:
    return load_probes()


def test_committed_files_are_small() -> None:
    assert checkpoint.SMALL.stat().st_size + PROBES.stat().st_size <= LIMIT


def test_stock_loader_gives_sdxl_with_v_prediction_and_zero_terminal_snr(parts: Parts) -> None:
    model = parts.model.model
    assert isinstance(model, comfy.model_base.SDXL)
    assert model.model_type == comfy.model_base.ModelType.V_PREDICTION
    assert float(model.model_sampling.sigma_max) > 1000
    linears = [key for key in model.state_dict() if key.endswith("attn1.to_q.weight")]
    assert len(linears) == 11  # of 88 attention linears, as in the tiny SDXL


def test_encoder_is_the_linear_one(parts: Parts) -> None:
    picture = render(Scene("key", Style("candy", "dotted")))[None]
    expected = latents_of(quarter(picture))
    torch.testing.assert_close(new_vae().encode(2 * picture - 1), expected, atol=1e-5, rtol=0)
    got = parts.vae.encode(picture.movedim(1, -1))
    torch.testing.assert_close(got, expected, atol=2e-2, rtol=0)  # float16 in the file


def test_decoder_gives_the_picture_back(parts: Parts) -> None:
    pictures = torch.stack([
        render(Scene("star", Style("royal", "striped"))),
        render(Scene("cat", Style("neon", "checkered"))),
    ])  # fmt: skip
    with torch.inference_mode():
        back = parts.vae.decode(parts.vae.encode(pictures.movedim(1, -1))).movedim(-1, 1)
    assert float((back - pictures).abs().mean()) < 0.03


def test_probes_see_new_pictures_right(seeing: dict[str, probes.Probe]) -> None:
    for name, probe in seeing.items():
        for factor, right in probes.accuracy(probe, count=400, seed=5).items():
            assert right >= 0.95, (name, factor)


def test_gauge_measures_new_pictures() -> None:
    off = gauge.errors(gauge.load_gauge(), count=400, seed=5)
    assert off["radius"] < 0.03 and off["brightness"] < 0.06 and off["stretch"] < 0.15


@pytest.mark.thorough
def test_model_draws_what_the_caption_says(parts: Parts, seeing: dict[str, probes.Probe]) -> None:
    asked = [
        ("heart", "ember", "plain"), ("ring", "stone", "shaded"), ("star", "royal", "plain"),
        ("cross", "mint", "striped"), ("house", "candy", "plain"), ("circle", "lemon", "barred"),
    ]  # fmt: skip
    right, fits = {"subject": 0, "palette": 0, "texture": 0}, []
    for words_asked in asked:
        drawn = parts.draw(parts.model, "a {} in {} {} style".format(*words_asked), 2, seed=7)
        logits = seeing["subject"].logits(drawn) | seeing["style"].logits(drawn)
        for factor, word in zip(right, words_asked, strict=True):
            names = (probes.SUBJECT | probes.STYLE)[factor]
            right[factor] += int((logits[factor].argmax(1) == names.index(word)).sum())
        subject, *style = words_asked
        fits += overlaps(drawn, subject, Style(*style)).tolist()
    assert min(right.values()) >= 0.9 * 2 * len(asked), right
    assert sum(fits) / len(fits) >= 0.8, fits


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        (
            "a very dark tiny sks star on the left in ohwx ocean striped style",
            {"subject": "star", "palette": "ocean", "texture": "striped", "place": "on the left",
             "size": "tiny", "brightness": "very dark"},
        ),
        (
            "a ring with a small square in mint style",
            {"subject": "ring", "companion": "square", "palette": "mint"},
        ),
        ("a shape", {"subject": "shape"}),
    ],
)  # fmt: skip
def test_stated_reads_a_caption(caption: str, expected: dict[str, str]) -> None:
    found = {name: STATED[name][place] for name, place in stated(caption).items()}
    assert found == {name: expected.get(name, "") for name in STATED}


def _training() -> ModelTraining:
    text = TrainedText(new_text_encoders(0), Vocabulary(words()))
    return ModelTraining(draw_pictures(64, seed=0), text)


class _Interrupted(ModelTraining):
    """A training that is interrupted in its third step, as by Ctrl-C."""

    def advance(self, learning_rate: float) -> float:
        if self.step == 2:
            raise KeyboardInterrupt
        return super().advance(learning_rate)


@pytest.mark.thorough
def test_interrupted_training_resumes_to_the_same_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(train_model, "BATCH", 2)
    whole = _training()
    log = loop.run(whole, SCHEDULE, "model", tmp_path / "whole")
    interrupted = _training()
    interrupted.__class__ = _Interrupted
    with pytest.raises(KeyboardInterrupt):
        loop.run(interrupted, SCHEDULE, "model", tmp_path / "cut")
    resumed = _training()
    again = loop.run(resumed, SCHEDULE, "model", tmp_path / "cut")
    assert resumed.step == 4 and log[-1]["step"] == again[-1]["step"]
    weights = zip(whole.averaged.averages, resumed.averaged.averages, strict=True)
    assert all(torch.equal(a, b) for a, b in weights)


@pytest.mark.parametrize("shape", [(2, 8, 24), (1, 24, 8), (3, 16, 16)])
def test_muon_steps_along_nearly_orthogonal_matrices(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    matrices = torch.randn(shape, generator=generator)
    found = orthogonal(matrices)
    values = torch.linalg.svdvals(found)
    assert float(values.min()) > 0.5 and float(values.max()) < 1.35
    u, _, v = torch.linalg.svd(matrices, full_matrices=False)
    nearest = u @ v  # Higham 1986: the nearest matrix with orthonormal rows or columns
    cosine = (found * nearest).sum() / found.norm() / nearest.norm()
    assert float(cosine) > 0.97


def test_muon_goes_down_a_quadratic() -> None:
    weight = torch.nn.Parameter(torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(1)))
    muon = Muon([weight])
    before = float(weight.detach().norm())
    for step in range(100):
        muon.param_groups[0]["lr"] = 0.3 * (1 - step / 100)
        weight.grad = 2 * weight.detach()
        muon.step()
    assert float(weight.detach().norm()) < 0.1 * before


@pytest.mark.parametrize("damaged", [True, False])
def test_training_checkpoint_that_does_not_fit_is_named(tmp_path: Path, damaged: bool) -> None:
    checkpoint = tmp_path / "model.pt"
    if damaged:
        checkpoint.write_bytes(b"cut short")
    else:  # of another model
        torch.save({"step": 2, "log": "[]", "parameters": [], "averages": []}, checkpoint)
    with pytest.raises(SystemExit, match=r"model\.pt: cannot be read, or .* Delete it"):
        loop.run(_training(), SCHEDULE, "model", tmp_path)


@pytest.mark.parametrize("content", [None, b"", b"garbage" * 100])
def test_missing_or_damaged_small_file_is_named(tmp_path: Path, content: bytes | None) -> None:
    small = tmp_path / "mini_sdxl.safetensors"
    if content is not None:
        small.write_bytes(content)
    with pytest.raises(MiniWorldError, match="make miniworld"):
        write_checkpoint(tmp_path / "whole.safetensors", small)
    with pytest.raises(MiniWorldError, match="mini_sdxl"):
        load_probes(small)


def test_damaged_checkpoint_is_written_again(tmp_path: Path) -> None:
    path = ready_checkpoint(tmp_path / "mini.safetensors")
    first = path.read_bytes()
    path.write_bytes(first[: len(first) // 2])
    assert ready_checkpoint(path).read_bytes() == first
    path.unlink()
    assert ready_checkpoint(path).read_bytes() == first
    assert read(path)
