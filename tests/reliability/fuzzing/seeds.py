"""Good and odd inputs of every reader, built by code: the beginnings of all others."""

from __future__ import annotations

import io
import json
import struct
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

CHECKPOINT = "training"
SGM = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"
DOTTED = "diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_q"
DIFFUSERS = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}


def _ones(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.ones(*shape, dtype=dtype)


TENSORS: dict[str, dict[str, Tensor]] = {
    "kohya": {
        f"{SGM}.lora_down.weight": _ones(2, 8, dtype=torch.float16),
        f"{SGM}.lora_up.weight": _ones(8, 2, dtype=torch.bfloat16),
        f"{SGM}.alpha": torch.tensor(1.0),
    },
    "peft": {f"{DOTTED}.lora_A.weight": _ones(2, 8), f"{DOTTED}.lora_B.weight": _ones(8, 2)},
    "core": {
        f"{SGM}.lora_down.weight": _ones(2, 4, 1, 1),
        f"{SGM}.lora_mid.weight": _ones(2, 2, 3, 3),
        f"{SGM}.lora_up.weight": _ones(8, 2, 1, 1),
    },
    "loha": {
        f"{SGM}.hada_{part}": _ones(*shape)
        for part, shape in {"w1_a": (8, 2), "w1_b": (2, 8), "w2_a": (8, 2), "w2_b": (2, 8)}.items()
    },
    "lokr": {
        f"{SGM}.lokr_{part}": _ones(*shape)
        for part, shape in {"w1": (4, 4), "w2_a": (8, 2), "w2_b": (2, 8)}.items()
    },
    "diffusers": {
        f"{DIFFUSERS}.lora_A.weight": _ones(2, 8),
        f"{DIFFUSERS}.lora_B.weight": _ones(8, 2),
    },
    "dense": {f"{SGM}.diff": _ones(8, 8), f"{SGM}.diff_b": _ones(8)},
    "official dense": {f"unet.{DIFFUSERS}.lora.weight": _ones(8, 8)},
    "numbered": {"unet:0:up": _ones(8, 1), "unet:0:down": _ones(1, 768)},
}
METADATA: dict[str, str] = {
    "ss_tag_frequency": json.dumps({"a": {"sks dog": 3, "grass": 1}}),
    "modelspec.trigger_phrase": "",
    "ziplora.ranks": json.dumps({"default": [1, 1], "others": {SGM: [2, 0]}}),
    "ziplora.separable": "true",
    "ziplora.prompt_separated": "false",
    "ziplora.negative_strength": "0.5",
    "ziplora.slider": json.dumps({"range": [-2, 2], "start_percent": 0.2}),
    "ziplora.content": json.dumps({"name": "a", "sha256": "0"}),
    "lora_adapter_metadata": json.dumps(
        {"unet.lora_alpha": 4, "unet.alpha_pattern": {".*attn1.*to_(q|k)": 2, "^x.to_q": 1}}
    ),
}


def safetensors_file(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """Write a safetensors file as its library does."""
    fields: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    body = b""
    for key, tensor in tensors.items():
        data = tensor.contiguous().view(torch.uint8).numpy().tobytes() if tensor.ndim else (
            np.frombuffer(struct.pack("<f", float(tensor)), np.uint8).tobytes()
        )  # fmt: skip
        span = [len(body), len(body) + len(data)]
        shape = list(tensor.shape)
        fields[key] = {"dtype": NAMES[tensor.dtype], "shape": shape, "data_offsets": span}
        body += data
    text = json.dumps(fields).encode()
    return struct.pack("<Q", len(text)) + text + body


def pickled(content: object, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def checkpoint_seeds() -> list[bytes]:
    """Write the checkpoint of a training of one small tensor, in a folder of CHECKPOINT's name."""
    from ziplora_core.training.checkpoint import CheckpointFolder
    from ziplora_core.training.saved_state import SavedState

    moment = {"step": torch.tensor(3.0), "exp_avg": _ones(4), "exp_avg_sq": _ones(4)}
    state = SavedState([_ones(4)], {}, {"loss": [1.0, 0.5, 0.2]}, 3, 5, {0: moment})
    with tempfile.TemporaryDirectory() as place:
        folder = CheckpointFolder(Path(place, CHECKPOINT))
        folder.save(state)
        return [folder.state_file.read_bytes()]


def safetensors_seeds() -> list[bytes]:
    plain = [safetensors_file(tensors, {}) for tensors in TENSORS.values()]
    return [*plain, *(safetensors_file(TENSORS[name], METADATA) for name in ("kohya", "peft"))]


def pickle_seeds() -> list[bytes]:
    numbered = list(TENSORS["numbered"].values())
    contents = [*TENSORS.values(), {"state_dict": TENSORS["kohya"]}, numbered]
    return [pickled(content, zipped) for content in contents for zipped in (True, False)]


def merger_seeds() -> list[bytes]:
    merger = {f"{DIFFUSERS}.lora.merge_content": _ones(8)}
    return [pickled(merger, zipped) for zipped in (True, False)]


TEXTS = [
    "a photo of sks dog, on grass",
    "\ufeffein Bär",
    "крыса и кот",
    'file_name,text\ndog.jpg,"a dog, on grass"\n',
    '{"file_name": "dog.jpg", "text": "a dog"}\n{"file_name": "b.png", "text": "b"}\n',
]


def text_seeds() -> list[bytes]:
    encodings = ("utf-8", "utf-16", "utf-32", "cp1251")
    return [text.encode(coding, "replace") for text in TEXTS for coding in encodings]


def request_seeds() -> list[bytes]:
    bodies = ({}, {"node_id": "12"}, {"node_id": 3, "workflow": None}, [1], "x", {"node_id": [[1]]})
    heads = ("application/json", "application/json; charset=utf-16", "text/plain; charset=nonsense")
    return [f"{head}\n{json.dumps(body)}".encode() for body in bodies for head in heads]
