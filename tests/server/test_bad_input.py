"""Bad input through the live server: a clear error, nothing lost, and it goes on serving."""

from __future__ import annotations

import json
import pickle
import re
import resource
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from sandbox.server import ComfyServer, PromptRejected

from .graph import SUBJECT, Graph, report, saved_path, sentence, succeeded

Q = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
SD15 = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
FLUX = "lora_unet_double_blocks_0_img_attn_qkv"


def factors(name: str, width: int, height: int, rank: int = 2) -> dict[str, torch.Tensor]:
    return {
        f"{name}.lora_down.weight": torch.ones(rank, width),
        f"{name}.lora_up.weight": torch.ones(height, rank),
    }


def lora_file(tensors: dict[str, torch.Tensor]) -> bytes:
    return safetensors.torch.save(tensors)


def with_value(value: float) -> bytes:
    tensors = factors(Q, 64, 64)
    tensors[f"{Q}.lora_up.weight"][0, 0] = value
    return lora_file(tensors)


def lying_header() -> bytes:
    header = {f"{Q}.lora_down.weight": {"dtype": "F32", "shape": [2, 64], "data_offsets": [0, 99]}}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(512)


FILES: dict[str, tuple[bytes, str]] = {
    "truncated": (lora_file(factors(Q, 64, 64))[:-100], "truncated|bytes"),
    "pickle": (pickle.dumps({"a": [1.0]}), "pickle"),
    "lying_header": (lying_header(), "offset|bytes"),
    "nan": (with_value(float("nan")), f"{Q}.lora_up.weight.*(NaN|nan)"),
    "inf": (with_value(float("inf")), f"{Q}.lora_up.weight.*(inf|Inf)"),
    "empty": (b"", "empty|0 bytes"),
    "rank0": (lora_file(factors(Q, 64, 64, rank=0)), "rank of at least 1"),
    "wrong_shape": (lora_file(factors(Q, 63, 64)), r"module .*attn1_to_q: found down \(2, 63\)"),
    "sd15": (lora_file(factors(SD15, 768, 320)), "found LoRAs for SDXL and for Stable Diffusion 1"),
    "flux": (lora_file(factors(FLUX, 3072, 9216)), "found LoRAs for SDXL and for FLUX.1"),
}


def message_of(server: ComfyServer, graph: Graph) -> str:
    """Run a graph that is to fail; the server goes on serving."""
    said = sentence(server, graph)
    assert server.get("/system_stats")["system"]
    return said


@pytest.fixture
def write_lora(server: ComfyServer) -> Iterator[Callable[[str, bytes], str]]:
    """Put files into the server's loras folder for one test."""
    written: list[Path] = []

    def write(name: str, data: bytes) -> str:
        path = server.models / "loras" / f"{name}.safetensors"
        path.write_bytes(data)
        written.append(path)
        server.object_info()  # as a person's refresh does
        return path.name

    yield write
    for path in written:
        path.unlink(missing_ok=True)


@pytest.mark.parametrize("case", FILES)
def test_bad_lora_file_is_named_with_what_to_do(
    case: str, server: ComfyServer, write_lora: Callable[[str, bytes], str]
) -> None:
    data, found = FILES[case]
    name = write_lora(f"bad_{case}", data)
    graph = Graph()
    graph.save(graph.direct(graph.pair(style=name)), "never")
    message = message_of(server, graph)
    assert name in message and re.search(found, message), message
    assert "found" in message and "expected" in message and message.endswith(".")


@pytest.mark.parametrize("concept", ["content", "style"])
def test_a_strength_of_zero_is_refused_before_anything_is_learned(
    concept: str, server: ComfyServer
) -> None:
    graph = Graph()
    graph.save(graph.optimise(graph.pair(**{f"{concept}_strength": 0.0})), "never")
    message = message_of(server, graph)
    assert f"{concept}_strength: found 0: this LoRA adds nothing" in message


def test_two_loras_without_a_common_module_say_what_to_do(
    server: ComfyServer, write_lora: Callable[[str, bytes], str]
) -> None:
    k = Q.replace("to_q", "to_k")
    names = [write_lora(f"half_{n[-1]}", lora_file(factors(n, 64, 64))) for n in (Q, k)]
    graph = Graph()
    graph.save(graph.optimise(graph.pair(*names)), "never")
    message = message_of(server, graph)
    assert "0 modules in common" in message and "MergeLoRAs" in message


def test_lora_name_that_is_not_listed_is_a_400(server: ComfyServer) -> None:
    graph = Graph()
    graph.save(graph.direct(graph.pair(content="no_such_file.safetensors")), "never")
    with pytest.raises(PromptRejected) as refused:
        server.queue(graph.prompt)
    assert refused.value.status == 400 and "no_such_file" in json.dumps(refused.value.body)


def test_lora_deleted_between_queueing_and_running_is_named(
    server: ComfyServer, write_lora: Callable[[str, bytes], str]
) -> None:
    name = write_lora("goes_away", lora_file(factors(Q, 64, 64)))
    slow = Graph()
    slow.save(slow.optimise(slow.pair(), steps=30, seed=201), "slow")
    graph = Graph()
    graph.save(graph.direct(graph.pair(style=name)), "never")
    queued: list[str] = []

    def delete_while_waiting(event: Any) -> None:
        if event["type"] == "progress" and not queued:
            queued.append(server.queue(graph.prompt))
            (server.models / "loras" / name).unlink()

    assert server.run(slow.prompt, on_event=delete_while_waiting).status == "success"
    for _ in range(300):
        if history := server.history(queued[0]):
            break
        time.sleep(0.1)
    else:
        pytest.fail("the second prompt did not run")
    text = json.dumps(history["status"])
    assert name in text and "no such file" in text and "Press R" in text


@pytest.mark.parametrize(
    "prefix", ["../escaped", "/tmp/escaped", "a/../../b", "C:\\escaped", "", "..\\up"]
)
@pytest.mark.parametrize("node", ["SaveMergedLoRA", "SaveTrainedLoRA"])
def test_filename_prefix_outside_the_output_folder_is_a_400(
    prefix: str, node: str, server: ComfyServer
) -> None:
    graph = Graph()
    merged = graph.direct(graph.pair())
    if node == "SaveMergedLoRA":
        graph.save(merged, prefix)
    else:
        graph.node(node, lora=[merged, 1], filename_prefix=prefix, dtype="fp16")
    with pytest.raises(PromptRejected) as refused:
        server.queue(graph.prompt)
    body = json.dumps(refused.value.body)
    assert refused.value.status == 400 and "expected a name inside output/loras" in body


def test_filename_prefix_that_arrives_by_a_link_is_refused_when_it_runs(
    server: ComfyServer,
) -> None:
    graph = Graph()
    merged = graph.direct(graph.pair())
    prefix = graph.out("PrimitiveString", value="../escaped")
    graph.node("SaveMergedLoRA", merged=[merged, 0], filename_prefix=prefix, rank=0, dtype="fp16")
    assert "expected a name inside output/loras" in message_of(server, graph)


def test_filename_prefix_below_a_file_is_named(server: ComfyServer) -> None:
    (server.output / "loras").mkdir(exist_ok=True)
    (server.output / "loras" / "a_file").write_text("in the way")
    graph = Graph()
    graph.save(graph.direct(graph.pair()), "a_file/merge")
    assert "filename_prefix 'a_file/merge': found Not a directory" in message_of(server, graph)


def test_full_disk_loses_nothing_and_the_next_try_uses_the_cache(server: ComfyServer) -> None:
    graph = Graph()
    options = graph.out("TrainingOptions", **OPTIONS, checkpoint_every=1)
    merged = graph.optimise(graph.pair(), options=options, seed=202, steps=3)
    saved = graph.save(merged, "disk/m")
    limit = resource.prlimit(server.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (20_000, limit[1]))
    try:
        failed = server.run(graph.prompt)
    finally:
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, limit)
    assert failed.error is not None
    message = failed.error["exception_message"]
    assert "disk/m_00001_.safetensors" in message and "Free some space" in message
    text = report(failed, merged)
    assert "no checkpoint at step 1: " in text and "File too large" in text
    assert list((server.output / "loras" / "disk").iterdir()) == []
    result = succeeded(server, graph)
    assert merged not in result.executed and saved_path(result, saved).exists()


OPTIONS: dict[str, Any] = {
    "optimiser": "adam", "schedule": "constant", "warm_up_steps": 0, "batch": 1,
    "accumulation": 1, "gradient_clip": 1.0, "min_snr_gamma": 0.0, "early_stop": True,
    "held_out_draws": 4, "resume": "auto",
}  # fmt: skip


def masked(graph: Graph, prompt: list[Any]) -> list[Any]:
    mask = graph.out("SolidMask", value=1.0, width=64, height=64)
    return graph.out("ConditioningSetMask", conditioning=prompt, mask=mask, strength=1.0,
                     set_cond_area="default")  # fmt: skip


def two(graph: Graph, prompt: list[Any]) -> list[Any]:
    other = graph.text("another")
    return graph.out("ConditioningCombine", conditioning_1=prompt, conditioning_2=other)


def timed(graph: Graph, prompt: list[Any]) -> list[Any]:
    return graph.out("ConditioningSetTimestepRange", conditioning=prompt, start=0.0, end=0.5)


@pytest.mark.parametrize(
    ("change", "found"),
    [(masked, "mask"), (two, "2 entries"), (timed, "end_percent, start_percent")],
)
def test_conditioning_that_is_not_one_prompt_is_refused(
    change: Callable[[Graph, list[Any]], list[Any]], found: str, server: ComfyServer
) -> None:
    graph = Graph()
    prompt = change(graph, graph.text("a dog"))
    graph.save(graph.optimise(graph.pair(), style_conditioning=prompt), "never")
    message = message_of(server, graph)
    assert message.startswith(f"style_conditioning: found {found}")


def test_latent_of_another_model_is_refused(server: ComfyServer) -> None:
    graph = Graph()
    latent = graph.out("EmptySD3LatentImage", width=64, height=64, batch_size=1)
    graph.save(graph.optimise(graph.pair(), content_latent=latent), "never")
    assert "content_latent: found latents of shape (1, 16, 8, 8)" in message_of(server, graph)


def test_model_with_a_patch_is_refused_by_name(server: ComfyServer) -> None:
    graph = Graph()
    patched = graph.out("FreeU_V2", model=graph.model, b1=1.1, b2=1.2, s1=0.9, s2=0.2)
    graph.save(graph.optimise(graph.pair(), model=patched), "never")
    assert "found patch output_block_patch" in message_of(server, graph)


def test_model_with_a_stock_lora_is_a_base_like_any_other(server: ComfyServer) -> None:
    graph = Graph()
    lora = graph.stock_lora(graph.model, graph.clip, SUBJECT, 0.3)
    merged = graph.optimise(graph.pair(), model=[lora, 0], steps=2)
    graph.save(merged, "on_lora")
    assert "2 of 2 steps" in report(succeeded(server, graph), merged)


@pytest.mark.parametrize(("content", "model"), [("None", False), (SUBJECT, True)])
def test_pair_needs_exactly_one_source_per_concept(
    content: str, model: bool, server: ComfyServer
) -> None:
    graph = Graph()
    extra = {"content_lora_model": [graph.direct(graph.pair()), 1]} if model else {}
    graph.save(graph.direct(graph.pair(content=content, **extra)), "never")
    message = message_of(server, graph)
    assert message.startswith("content_lora: found") and "content_lora_model" in message


def test_missing_clip_is_an_error_only_where_its_output_is_used(server: ComfyServer) -> None:
    graph = Graph()
    pair = graph.node("LoadLoRAPair", content_lora=SUBJECT, style_lora=SUBJECT,
                      content_strength=1.0, style_strength=1.0)  # fmt: skip
    merged = graph.direct(pair)
    graph.save(merged, "no_clip")
    assert "no CLIP is connected" in report(succeeded(server, graph), pair)
    graph.save(graph.optimise(pair), "never")
    result = server.run(graph.prompt)
    assert result.error is not None
    message = result.error["exception_message"]
    assert "_clip: found no CLIP connected" in message and "clip input" in message


@pytest.mark.parametrize("method", ["direct", "svd", "null_space", "ties", "tsv", "norm_cap"])
def test_merge_of_nothing_is_an_error_that_says_so(method: str, server: ComfyServer) -> None:
    graph = Graph()
    merged = graph.direct(graph.pair(), method=method, content_weight=0.0, style_weight=0.0)
    graph.save(merged, "nothing")
    assert f"method={method}: found nothing left at content_weight 0" in message_of(server, graph)


def test_calibrated_method_without_prompts_says_what_to_connect(server: ComfyServer) -> None:
    graph = Graph()
    merged = graph.direct(graph.pair(), method="rank_space")
    graph.save(merged, "nothing")
    message = message_of(server, graph)
    assert "content_conditioning and style_conditioning" in message and "Connect" in message


@pytest.mark.parametrize(
    ("content", "style", "words"),
    [(0.0, 0.0, "neither LoRA is in the joint picture"), (0.9, -1.0, "joint_style: found -1")],
)
def test_joint_strengths_that_ask_for_nothing_are_refused_before_the_run(
    content: float, style: float, words: str, server: ComfyServer
) -> None:
    graph = Graph()
    merged = graph.optimise(graph.pair(), joint_content=content, joint_style=style)
    graph.save(merged, "never")
    with pytest.raises(PromptRejected, match=words):
        server.run(graph.prompt)
