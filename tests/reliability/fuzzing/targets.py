"""The readers of foreign bytes, each as a function that may raise a typed error only."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ziplora_core.comfy_adapter.data.caption_table import read_table
from ziplora_core.comfy_adapter.data.text_files import read_texts
from ziplora_core.errors import ZipLoRAError
from ziplora_core.files import lora_from_tensors, read_lora
from ziplora_core.files.merge_file import merged_from_lora, merged_metadata
from ziplora_core.files.metadata import inherited, source_metadata, trigger_words
from ziplora_core.files.unziplora_mergers import read_mergers
from ziplora_core.files.writer import lora_bytes
from ziplora_core.lora.blocks import parse_blocks
from ziplora_core.lora.factors import LoRA, LoraFactors
from ziplora_core.lora.merged import MergedLoRA
from ziplora_core.lora.pair import pair_modules
from ziplora_core.merging import CALIBRATED, METHODS, MergeSettings, merge
from ziplora_core.sliders.metadata import slider_use
from ziplora_core.training.checkpoint import CheckpointFolder
from ziplora_core.training.saved_state import Layout, check_fit

from . import seeds

MODEL = {"down_blocks.0": (8, 768), "down_blocks.1": (64, 64)}
"""Weight shapes of the model at hand: so small that it excuses no memory."""
TYPED = (ZipLoRAError,)


@dataclass(frozen=True)
class Target:
    """One reader.

    Args:
        seeds: makes good inputs.
        read: reads an input; the folder is its own, and empty. It returns False where it refuses
            the input in another way than by an error.
        share: its part of all inputs.
    """

    seeds: Callable[[], list[bytes]]
    read: Callable[[bytes, Path], bool | None]
    share: float


def _file(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def _use(lora: LoRA) -> None:
    """Do with a LoRA what the nodes do: read its metadata, split it, write it."""
    metadata = lora.metadata
    trigger_words(metadata), inherited(metadata), slider_use(metadata)
    source_metadata(lora, lora)
    try:
        merged = merged_from_lora(lora)
        merged_metadata(merged), merged.negative_strength
    except ZipLoRAError:
        pass
    lora_bytes(lora.modules, inherited(metadata), torch.float16)


def read_safetensors(data: bytes, folder: Path) -> None:
    _use(read_lora(_file(folder, "a.safetensors", data), "drop", MODEL))


def read_pickle(data: bytes, folder: Path) -> None:
    _use(read_lora(_file(folder, "a.pt", data), "drop", MODEL))


def read_merger(data: bytes, folder: Path) -> None:
    factors = LoraFactors(torch.ones(2, 8), torch.ones(8, 2))
    module = "lora_" + seeds.DIFFUSERS.replace(".", "_")
    read_mergers(_file(folder, "m.pth", data), "content", LoRA("a", {module: factors}))


def read_metadata(data: bytes, folder: Path) -> None:
    """Read texts of metadata: the first line names the entry, the rest is its text."""
    name, _, text = data.decode("utf-8", "ignore").partition("\n")
    metadata = {"ziplora.separable": "true", **seeds.METADATA, name: text}
    _use(lora_from_tensors(seeds.TENSORS["kohya"], metadata))
    parse_blocks(text)


def read_caption(data: bytes, folder: Path) -> None:
    kind = ("a.txt", "metadata.jsonl", "metadata.csv")[data[0] % 3 if data else 0]
    path = _file(folder, kind, data[1:])
    text = read_texts([path]).by_file[path]
    if kind != "a.txt":
        read_table(path, text)


def read_checkpoint(data: bytes, folder: Path) -> bool:
    """Read a checkpoint, or see it set aside; every second one has the digest of its contents, to
    get further."""
    if len(data) % 2:
        data = data[:-32] + hashlib.sha256(data[:-32]).digest()
    found = CheckpointFolder(folder / seeds.CHECKPOINT)
    found.path.mkdir(exist_ok=True)
    _file(found.path, found.state_file.name, data)
    one = torch.ones(4)
    moment: dict[str, Layout | type] = {
        "step": ((), one.dtype), "exp_avg": ((4,), one.dtype), "exp_avg_sq": ((4,), one.dtype)
    }  # fmt: skip
    try:
        state = found.load(lambda state: check_fit(state, 5, [one], {}, {0: moment})).state
        return state is not None
    finally:
        found.remove()


def merge_some(data: bytes, folder: Path) -> None:
    """Merge two LoRAs whose shapes, numbers and settings the bytes decide."""
    numbers = iter([*data, *bytes(64)])

    def factors() -> LoraFactors:
        rank, out, width, kernel, power = (next(numbers) for _ in range(5))
        rng = torch.Generator().manual_seed(power)
        taps = (1 + kernel % 3,) * 2 if kernel % 2 else ()
        size = 10.0 ** (power % 64 - 32)
        down = size * torch.randn(1 + rank % 6, 1 + width % 9, *taps, generator=rng)
        up = torch.randn(1 + out % 9, len(down), *(1,) * len(taps), generator=rng)
        return LoraFactors(down, up * (next(numbers) > 9), None if rank % 4 else float(power - 99))

    content = factors()
    style = factors() if next(numbers) % 2 else LoraFactors(content.down + 1, content.up * 2)
    same = style.down.shape[1:] == content.down.shape[1:] and len(style.up) == len(content.up)
    style = style if same else LoraFactors(content.down * 0, content.up)
    halves = [{seeds.SGM: half} if next(numbers) % 8 else {} for half in (content, style)]
    chosen = [name for name in METHODS if name not in CALIBRATED]
    settings = MergeSettings(next(numbers) / 99, next(numbers) / 99, rank=next(numbers) % 5)
    merged = MergedLoRA(pair_modules(*halves))
    result, _ = merge(chosen[next(numbers) % len(chosen)], merged, settings)
    modules: dict[str, LoraFactors] = result.modules()
    if modules:
        lora_bytes(modules, {}, torch.float32)


def ask(data: bytes, folder: Path) -> bool:
    """Send a request to each of the pack's routes: 500 is an error, 400 refuses the body."""
    from .server import statuses_of

    head, _, body = data.partition(b"\n")
    statuses = statuses_of(head, body)
    if max(statuses) >= 500:
        raise AssertionError(f"status {max(statuses)}")
    return 400 not in statuses


def _metadata_seeds() -> list[bytes]:
    return [f"{name}\n{text}".encode() for name, text in seeds.METADATA.items()]


def _merge_seeds() -> list[bytes]:
    return [bytes((7 * i + step) % 256 for i in range(20)) for step in range(16)]


TARGETS: dict[str, Target] = {
    "safetensors": Target(seeds.safetensors_seeds, read_safetensors, 0.25),
    "pickles": Target(seeds.pickle_seeds, read_pickle, 0.15),
    "mergers": Target(seeds.merger_seeds, read_merger, 0.05),
    "metadata": Target(_metadata_seeds, read_metadata, 0.25),
    "captions": Target(seeds.text_seeds, read_caption, 0.1),
    "checkpoints": Target(seeds.checkpoint_seeds, read_checkpoint, 0.1),
    "merges": Target(_merge_seeds, merge_some, 0.05),
    "routes": Target(seeds.request_seeds, ask, 0.05),
}
