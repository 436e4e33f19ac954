"""SDXL in its full size from a checkpoint file, on the CPU, without a card: `make real_size`.

It writes a checkpoint of random bf16 weights and two LoRAs of rank 64, loads them as a graph does,
learns the merge by Adam and by the closed form, saves it, loads the file with ComfyUI's own loader
and draws with it. Latents are small and steps few: what is measured is the size of the model. It
writes a section of docs/BENCHMARKS.md, and deletes the files.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sandbox.commands import say
from sandbox.paths import ROOT, SANDBOX, use_comfyui

use_comfyui()
sys.path.append(str(ROOT))  # last: ComfyUI has a nodes.py, the pack a nodes folder

from comfy.cli_args import args as comfy_args  # noqa: E402

comfy_args.bf16_unet = True  # the weights stay as the file has them

import comfy.model_management  # noqa: E402
import comfy.sample  # noqa: E402
import comfy.sd  # noqa: E402
import comfy.utils  # noqa: E402
import folder_paths  # noqa: E402
import psutil  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from bench.document import write  # noqa: E402
from bench.engine.models import SIZES, Scale, random_pairs  # noqa: E402
from bench.table import Table  # noqa: E402
from sandbox import tiny  # noqa: E402
from ziplora_core.comfy_adapter.apply.lora import apply_lora  # noqa: E402
from ziplora_core.comfy_adapter.data import references  # noqa: E402
from ziplora_core.comfy_adapter.train.ziplora import train_ziplora  # noqa: E402
from ziplora_core.comfy_adapter.train.ziplora_inputs import Prompt  # noqa: E402
from ziplora_core.files import read_lora  # noqa: E402
from ziplora_core.files.merge_file import merged_metadata  # noqa: E402
from ziplora_core.files.writer import write_lora  # noqa: E402
from ziplora_core.lora.merged import MergedLoRA  # noqa: E402
from ziplora_core.lora.pair import LoRAPair  # noqa: E402
from ziplora_core.ziplora.options import ZipLoRASettings  # noqa: E402

from .agreement import relative  # noqa: E402
from .random_checkpoint import write_checkpoint  # noqa: E402
from .runs import CONTENT, JOINT, OPTIONS, STYLE  # noqa: E402

GIB = 2**30
NEEDED = 22.0
"""GiB of free memory: the weights in bf16, their copy for training in float32, and the rest."""
PROMPTS = {"content": CONTENT, "style": STYLE, "joint": JOINT}


class Phases:
    """The seconds and the peak memory of each phase, as rows of a table."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, float | None]] = {}

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Measure what is done inside, from the memory that the process has at its start."""
        Path("/proc/self/clear_refs").write_text("5")  # the kernel counts the peak anew
        begun = time.monotonic()
        yield
        self.rows[name] = {
            "seconds": time.monotonic() - begun,
            "peak GiB": _status("VmHWM"),
            "own GiB at the end": _status("RssAnon"),
        }
        say(f"{name}: {self.rows[name]}")


def _status(field: str) -> float:
    """Return a field of this process's memory in GiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 2**20


def main() -> None:
    options = parse()
    scale = replace(SIZES["full"], latent=options.latent)
    free = psutil.virtual_memory().available / GIB
    if free < NEEDED:
        raise SystemExit(
            f"make real_size: found {free:.1f} GiB of free memory, expected at least "
            f"{NEEDED:.0f}. End other programs and run it again."
        )
    references.TRAJECTORY_STEPS = 2
    begun = time.monotonic()
    with TemporaryDirectory(dir=SANDBOX, prefix="real_size_") as folder, torch.inference_mode():
        table = measure(scale, options.steps, options.states, Path(folder))
    say(f"\n{table.text()}")
    write("card", "real", [table], (time.monotonic() - begun) / 60)


def measure(scale: Scale, steps: int, states: int, folder: Path) -> Table:
    """Go the whole way, from the checkpoint to a drawing with the reloaded merge."""
    phases = Phases()
    with phases.of("write the checkpoint (not the pack's)"):
        checkpoint = write_checkpoint(folder / "random.safetensors", scale)
    with phases.of("load it: Load Checkpoint, encode three prompts"):
        model, prompts = load(checkpoint)
    with phases.of("write two LoRAs of rank 64"):
        paths = write_pair(model, folder)
    with phases.of("read the pair"):
        pair = LoRAPair(*(read_lora(path) for path in paths), 1.0, 1.0)
    merges = {}
    for solver, amount in (("adam", steps), ("closed_form", states)):
        settings = ZipLoRASettings(
            solver=solver, steps=amount, width=8 * scale.latent, height=8 * scale.latent,
            memory="low", options=OPTIONS, calibration_states=amount,
        )  # fmt: skip
        unit = "steps" if solver == "adam" else "states of each prompt"
        with phases.of(f"ZipLoRA Optimize, {solver}, {amount} {unit}"):
            merges[solver] = train_ziplora(model, pair, prompts, settings, folder / "runs").merged
    merged = merges["closed_form"]
    path = folder / "merge.safetensors"
    with phases.of("save the merge, fp16"):
        write_lora(path, merged.modules(), merged_metadata(merged), "fp16")
    with phases.of("read it, apply it with Load LoRA, draw one step"):
        error, effect = compare(model, prompts[2], merged, path, scale.latent)
    sizes = {"checkpoint": checkpoint, "LoRA": paths[0], "merge": path}
    notes = [f"{n}: {p.stat().st_size / 2**20:,.0f} MiB" for n, p in sizes.items()]
    notes += [
        f"{sum(1 for _ in merged.modules())} modules; latents {scale.latent} × {scale.latent}, "
        "trajectories of 2 steps, memory=low, --bf16-unet; training computes in float32",
        "own: without pages of files, which the system takes back when it needs them",
        f"the file through ComfyUI's loader beside the merge in memory: latents differ by "
        f"{error:.1e} of their rms, where the merge changes them by {effect:.1e}",
    ]
    columns = {"seconds": ".0f", "peak GiB": ".1f", "own GiB at the end": ".1f"}
    title = "SDXL from a checkpoint file, full size, random bf16 weights, on the CPU"
    facts = {"error": error, "effect": effect}
    return Table(title, columns, phases.rows, notes, facts)


def load(checkpoint: Path) -> tuple[Any, list[Prompt]]:
    """Load a MODEL with the stock node, and encode the prompts; its CLIP and VAE are dropped."""
    import nodes

    folder_paths.add_model_folder_path("checkpoints", str(checkpoint.parent))
    model, clip, _vae = nodes.CheckpointLoaderSimple().load_checkpoint(checkpoint.name)
    encode = clip.encode_from_tokens_scheduled
    prompts = [Prompt(name, encode(clip.tokenize(text))) for name, text in PROMPTS.items()]
    comfy.model_management.unload_model_and_clones(clip.patcher)
    return model, prompts


def write_pair(model: Any, folder: Path) -> list[Path]:
    """Write two random LoRAs of all attention linears in fp16."""
    pairs = random_pairs(model.model, tiny.attention_linears(model.model), 64)
    paths = [folder / f"{name}.safetensors" for name in ("content", "style")]
    for half, path in enumerate(paths):
        modules = {name: pair.factors[half] for name, pair in pairs.items()}
        write_lora(path, modules, {}, "fp16")
    return paths


def compare(
    model: Any, prompt: Prompt, merged: MergedLoRA, path: Path, side: int
) -> tuple[float, float]:
    """Draw with the merge in memory, with its file through ComfyUI's loader, and without.

    Returns:
        how far the first two latents lie apart, and how far the merge moves them; relative rms.
    """
    read = read_lora(path)
    assert set(read.modules) == set(merged.modules())
    in_memory, _ = apply_lora(merged.modules(), "merge", model, None)
    tensors = comfy.utils.load_torch_file(str(path), safe_load=True)
    from_file, _ = comfy.sd.load_lora_for_models(model, None, tensors, 1.0, 0.0)
    drawn = [draw(each, prompt, side) for each in (in_memory, from_file, model)]
    return relative(drawn[1], drawn[0]), relative(drawn[0], drawn[2])


def draw(model: Any, prompt: Prompt, side: int) -> Tensor:
    """Draw one step with ComfyUI's own sampler."""
    noise = torch.randn(1, 4, side, side, generator=torch.Generator().manual_seed(0))
    found = comfy.sample.sample(
        model, noise, 1, 1.0, "euler", "normal", prompt.conditioning, prompt.conditioning,
        torch.zeros_like(noise), seed=0, disable_pbar=True,
    )  # fmt: skip
    comfy.model_management.unload_model_and_clones(model)
    return found


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make real_size ARGS=…", description=__doc__)
    parser.add_argument("--latent", type=int, default=16, help="side of the latents")
    parser.add_argument("--steps", type=int, default=3, help="of Adam")
    parser.add_argument("--states", type=int, default=2, help="of the closed form")
    return parser.parse_args()


if __name__ == "__main__":
    main()
