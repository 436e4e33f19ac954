"""TrainDreamBoothLoRA through the live server: files, previews, control, bad input."""

from __future__ import annotations

import hashlib
import io
import json
import resource
import struct
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
from PIL import Image

from sandbox.server import ComfyServer, Result

from ..graph import Graph, report, saved_latent, saved_path, sentence, succeeded
from ..training.test_control import checkpoints, run_until

STEPS = 8
OPTIONS = {
    "optimiser": "auto", "schedule": "cosine", "warm_up_steps": 2, "batch": 1, "accumulation": 1,
    "gradient_clip": 1.0, "min_snr_gamma": 5.0, "checkpoint_every": 50, "early_stop": True,
    "held_out_draws": 4, "resume": "auto", "caption_dropout": 0.1, "sample_every": STEPS,
    "sample_prompts": "sks dog\na dog",
}  # fmt: skip


def picture(folder: Path, name: str, size: tuple[int, int], colour: str = "teal") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(folder / name)


@pytest.fixture(scope="module")
def folder(server: ComfyServer) -> str:
    """Three pictures of different sizes with captions, in the input folder."""
    place = server.base / "input" / "my_dog"
    for name, size in (("a.png", (64, 64)), ("b.jpg", (100, 70)), ("c.webp", (70, 140))):
        picture(place, name, size)
        (place / name).with_suffix(".txt").write_text(f"sks dog, {name}\n")
    return "my_dog"


def train(graph: Graph, images: Any, **inputs: Any) -> str:
    """TrainDreamBoothLoRA with small numbers: outputs lora, loss, report."""
    settings: dict[str, Any] = {
        "prompt": "a photo of sks dog", "class_prompt": "", "prior_weight": 1.0,
        "layers": "attention", "rank": 4, "alpha": 4.0, "steps": STEPS, "learning_rate": 1e-3,
        "train_text_encoder": False, "resolution": 64, "seed": 0, "memory": "auto",
    }  # fmt: skip
    return graph.node(
        "TrainDreamBoothLoRA", model=graph.model, clip=graph.clip, vae=graph.vae, images=images,
        **{**settings, **inputs},
    )  # fmt: skip


def save(graph: Graph, trained: str, prefix: str) -> str:
    return graph.node(
        "SaveTrainedLoRA", lora=[trained, 0], filename_prefix=prefix, dtype="fp16",
        bias_and_norm="refuse",
    )  # fmt: skip


def plain(graph: Graph, width: int = 64, count: int = 1) -> list[Any]:
    return graph.out("EmptyImage", width=width, height=64, batch_size=count, color=0x884422)


def metadata_of(path: Path) -> dict[str, str]:
    with safetensors.safe_open(path, "pt") as file:
        return file.metadata()


def test_training_from_a_folder_saves_a_file_that_stock_nodes_take(
    server: ComfyServer, folder: str
) -> None:
    graph = Graph()
    read = graph.node("LoadTrainingImages", folder=folder)
    options = graph.out("TrainingOptions", **OPTIONS)
    trained = train(
        graph, [read, 0], captions=[read, 1], options=options, train_text_encoder=True,
        class_prompt="a photo of a dog", class_count=2, text_encoder_learning_rate=1e-3,
        learning_rate=1e-2,
    )  # fmt: skip
    saved = save(graph, trained, "trained/dog")
    graph.node("LossGraphNode", loss=[trained, 1], filename_prefix="loss")
    stock = graph.out("LoraModelLoader", model=graph.model, lora=[trained, 0],
                      strength_model=1.0, bypass=False)  # fmt: skip
    from_memory = graph.render(stock, graph.clip, "from_memory")
    result = succeeded(server, graph)
    text = report(result, trained)
    assert "LoRA of 3 pictures: 1 of 64 × 64, 1 of 72 × 56, 1 of 40 × 88" in text
    assert "88 UNet and 24 text-encoder modules, rank 4" in text
    assert "prior preservation: 2 class pictures, drawn by this model" in text
    assert "estimated about" in text and "peak memory of the whole process" in text

    path = saved_path(result, saved)
    said = metadata_of(path)
    data = path.read_bytes()
    assert f"SHA-256 {hashlib.sha256(data).hexdigest()}" in report(result, saved)
    body = data[8 + int.from_bytes(data[:8], "little") :]
    assert said["sshs_model_hash"] == hashlib.sha256(body).hexdigest()
    assert said["modelspec.hash_sha256"] == "0x" + said["sshs_model_hash"]
    assert said["ss_base_model_version"] == "sdxl_base_v1-0"
    wanted = {
        "ss_steps": "8", "ss_unet_lr": "0.01", "ss_text_encoder_lr": "0.001", "ss_seed": "0",
        "ss_network_dim": "4", "ss_network_alpha": "4", "ss_num_train_images": "3",
        "ss_num_reg_images": "2", "ss_optimizer": "adamw", "ss_lr_scheduler": "cosine",
        "ss_min_snr_gamma": "5.0", "ss_resolution": "(64, 64)", "ss_caption_dropout_rate": "0.1",
        "modelspec.prediction_type": "epsilon", "modelspec.trigger_phrase": "a photo of sks dog",
        "modelspec.architecture": "stable-diffusion-xl-v1-base/lora", "ss_output_name": path.stem,
        "modelspec.title": path.stem,
    }  # fmt: skip
    assert {key: said.get(key) for key in wanted} == wanted
    assert json.loads(said["ss_tag_frequency"]) == {
        "ziplora": {f"sks dog, {name}": 1 for name in ("a.png", "b.jpg", "c.webp")}
    }
    assert "/" not in said["ziplora.settings"].replace("\\n", "")

    missing = server.log().count("lora key not loaded")
    graph = Graph()
    model = graph.stock_lora(graph.model, graph.clip, f"trained/{path.name}")
    with_file = graph.render([model, 0], graph.clip, "with_file")
    without = graph.render(graph.model, graph.clip, "without")
    again = succeeded(server, graph)
    assert server.log().count("lora key not loaded") == missing
    latents = [saved_latent(server, r, n) for r, n in
               ((result, from_memory), (again, with_file), (again, without))]  # fmt: skip
    changed = float((latents[0] - latents[2]).abs().max())
    assert float((latents[0] - latents[1]).abs().max()) < 0.05 * changed  # fp16 in the file


def test_training_shows_the_loss_and_sample_pictures(server: ComfyServer, folder: str) -> None:
    graph = Graph()
    read = graph.node("LoadTrainingImages", folder=folder)
    options = graph.out("TrainingOptions", **OPTIONS)
    trained = train(graph, [read, 0], options=options, seed=31)
    save(graph, trained, "trained/samples")
    result = succeeded(server, graph)
    (last,) = result.previews
    assert struct.unpack(">I", last[:4])[0] == 1  # one without a node: the panel has it already
    shown = Image.open(io.BytesIO(last[last.index(b"\xff\xd8") :]))
    assert shown.width > 1.9 * shown.height  # a row of two samples
    run = server.get(f"/ziplora/training/{trained}")
    assert run["samples"] == [STEPS] and run["captions"] == [["sks dog", "a dog"]]
    assert run["points"]["step"] == list(range(1, STEPS + 1))
    kept = Image.open(io.BytesIO(server.get(f"/ziplora/training/{trained}/samples/{STEPS}")))
    assert kept.format == "JPEG" and kept.size == shown.size
    told = [e["data"]["status"] for e in result.events if e["type"] == "ziplora.training"]
    assert any("estimated about" in status for status in told) and run["status"] == ""


@pytest.mark.thorough
def test_training_cancelled_and_queued_again_gives_the_bit_identical_file(
    server: ComfyServer,
) -> None:
    files = []
    for prefix in ("cut", "whole"):
        graph = Graph()
        trained = train(graph, plain(graph), steps=30, seed=32)
        saved = save(graph, trained, f"{prefix}_db/m")
        if prefix == "cut":
            before = set(checkpoints(server))
            result = run_until(server, graph, trained, 7, server.interrupt)
            assert result.status == "interrupted"
            (lora,) = set(checkpoints(server)) - before
            assert len(safetensors.torch.load_file(lora)) == 88 * 3
        else:
            server.free()
        result = succeeded(server, graph)
        assert ("resumed at" in report(result, trained)) == (prefix == "cut")
        files.append(saved_path(result, saved).read_bytes())
    assert files[0] == files[1]


def test_samples_of_a_training_that_was_cancelled_are_shown_again_when_it_goes_on(
    server: ComfyServer,
) -> None:
    graph = Graph()
    often = {"sample_every": 2, "sample_prompts": "sks dog"}
    options = graph.out("TrainingOptions", **OPTIONS | often)
    trained = train(graph, plain(graph), steps=4, seed=33, options=options)
    save(graph, trained, "sampled_db/m")
    before = set(checkpoints(server))
    assert run_until(server, graph, trained, 2, server.interrupt).status == "interrupted"
    (kept,) = {path.parent for path in set(checkpoints(server)) - before}
    early = server.get(f"/ziplora/training/{trained}/samples/2")
    assert (kept / "samples" / "2.jpg").read_bytes() == early
    result = succeeded(server, graph)
    assert "resumed at" in report(result, trained)
    told = [e["data"] for e in result.events if e["type"] == "ziplora.training"]
    assert next(said for said in told if said["step"])["samples"][0] == 2
    run = server.get(f"/ziplora/training/{trained}")
    assert run["samples"] == [2, 4] and run["captions"] == [["sks dog"], None]
    assert server.get(f"/ziplora/training/{trained}/samples/2") == early
    assert not kept.exists()  # the LoRA is in a file


def test_training_stopped_keeps_what_was_learned(server: ComfyServer) -> None:
    graph = Graph()
    trained = train(graph, plain(graph), steps=2000, seed=33)
    saved = save(graph, trained, "stopped_db/m")
    result = run_until(
        server, graph, trained, 5, lambda: server.post("/ziplora/stop", {"node_id": trained})
    )
    assert result.status == "success" and "stopped after step" in report(result, trained)
    assert int(metadata_of(saved_path(result, saved))["ss_steps"]) < 2000


def test_training_goes_on_when_the_disk_is_full_and_says_so(server: ComfyServer) -> None:
    graph = Graph()
    options = graph.out("TrainingOptions", **{**OPTIONS, "checkpoint_every": 3, "sample_every": 0})
    trained = train(graph, plain(graph), options=options, seed=34)
    graph.node("PreviewAny", source=[trained, 2])
    limit = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (20_000, limit[1]))
    try:
        result = succeeded(server, graph)
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, limit)
    text = report(result, trained)
    assert f"{STEPS} of {STEPS} steps" in text
    assert "no checkpoint at step 3: " in text and "File too large" in text


def refused(server: ComfyServer, graph: Graph) -> str:
    return sentence(server, graph)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"captions": "a\nb\nc", "count": 2}, "captions: found 3 for 2 pictures"),
        ({"prompt": " "}, "prompt: found nothing"),
        ({"rank": 300}, "rank: found 300, above the width of 88 of 88 layers"),
        ({"learning_rate": 10.0}, "training: found the loss was not finite"),
        ({"class_images": True}, "class_prompt: found nothing, but class_images are connected"),
        ({"width": 4}, "images: found picture 1 of 4 × 64 pixels"),
    ],
)
def test_training_bad_input_is_an_error_that_says_what_to_do(
    inputs: dict[str, Any], message: str, server: ComfyServer
) -> None:
    graph = Graph()
    inputs = dict(inputs)
    images = plain(graph, inputs.pop("width", 64), inputs.pop("count", 1))
    if "class_images" in inputs:
        inputs["class_images"] = plain(graph)
    if "captions" in inputs:
        inputs["captions"] = graph.out("PrimitiveStringMultiline", value=inputs["captions"])
    trained = train(graph, images, **{"seed": 35, **inputs})
    graph.node("PreviewAny", source=[trained, 2])
    found = refused(server, graph)
    assert found.startswith(message) and "expected" in found


def broken(place: Path) -> None:
    (place / "b.png").write_bytes(b"not a picture")


def animated(place: Path) -> None:
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    frames[0].save(place / "b.gif", save_all=True, append_images=frames[1:])


def deep(place: Path) -> None:
    Image.new("F", (64, 64), 0.5).save(place / "b.tif")


def half_captioned(place: Path) -> None:
    picture(place, "b.png", (64, 64))
    (place / "a.txt").write_text("a dog")


def empty(place: Path) -> None:
    (place / "a.png").unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (broken, "b.png: found an unreadable file"),
        (animated, "b.gif: found an animation of 2 pictures"),
        (deep, "b.tif: found a picture of 32 bits a channel (F)"),
        (half_captioned, "folder 'half_captioned': found no caption for 1 of 2 pictures (b.png)"),
        (empty, "folder 'empty': found no pictures"),
    ],
)
def test_training_folder_with_bad_files_names_them(
    spoil: Any, message: str, server: ComfyServer
) -> None:
    place = server.base / "input" / spoil.__name__
    picture(place, "a.png", (64, 64))
    spoil(place)
    graph = Graph()
    read = graph.node("LoadTrainingImages", folder=spoil.__name__)
    graph.node("PreviewAny", source=[read, 2])
    assert refused(server, graph).startswith(message)


def test_training_folder_changed_is_read_again(server: ComfyServer) -> None:
    place = server.base / "input" / "grows"
    picture(place, "a.png", (64, 64))
    graph = Graph()
    read = graph.node("LoadTrainingImages", folder="grows")
    graph.node("PreviewAny", source=[read, 2])

    def told(result: Result) -> str:
        return report(result, read)

    assert "1 picture of 64 × 64\nno captions" in told(succeeded(server, graph))
    picture(place, "b.png", (80, 64))
    (place / "._b.png").write_bytes(b"what a Mac leaves behind")
    for name in ("a.TXT", "b.txt"):
        (place / name).write_text("sks dog")
    assert told(succeeded(server, graph)) == "2 pictures of 64 × 64, 80 × 64\none caption each"
