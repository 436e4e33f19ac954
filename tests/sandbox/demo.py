"""Show the pack at work in the sandbox's ComfyUI, without a window: `make demo`.

Runs the demo's workflow on the miniature SDXL, or a given workflow file with the sizes and steps of
`overrides`.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from miniworld.errors import MiniWorldError

from .overrides import OVERRIDES
from .paths import BASE, use_comfyui
from .result import Result
from .server import ComfyServer, PromptRejected, ServerError
from .workflow import WorkflowError, to_prompt

WORKFLOW = Path(__file__).with_name("demo.json")
ROWS = ("subject LoRA alone", "style LoRA alone", "plain sum of both", "ZipLoRA of both")
"""The rows of the demo's picture."""
EVERY = 10


def main(path: Path = WORKFLOW) -> int:
    """Run a workflow file and print its results; return 1 if it failed."""
    try:
        if path == WORKFLOW:
            prepare()
        print(f"{path.name}: starting ComfyUI …", flush=True)
        workflow = json.loads(path.read_text(encoding="utf-8"))
        overrides = {} if path == WORKFLOW else OVERRIDES
        with ComfyServer(BASE) as server:
            before = set(_files(server.output))
            prompt = to_prompt(workflow, server.object_info(), overrides)
            result = server.run(prompt, timeout=1800, on_event=_Progress(prompt))
            made = [file for file in _files(server.output) if file not in before]
        if path == WORKFLOW and result.error is None:
            made += side_by_side(made, server.output)
    except (ServerError, PromptRejected, WorkflowError, OSError, MiniWorldError) as error:
        print(f"The demo failed: {error}", file=sys.stderr)
        return 1
    return _report(result, prompt, made)


def prepare() -> None:
    """Write the demo's pictures, and the miniature SDXL if it is missing or damaged."""
    use_comfyui()
    from .mini_files import write_files

    write_files()


def side_by_side(made: list[Path], output: Path) -> list[Path]:
    """Label the rows of the picture, add the training pictures on top, and copy the workflow."""
    import numpy as np
    import torch
    from PIL import Image

    from miniworld.scenes import SIDE
    from quality.sheet import contact_sheet
    from quality.subjects import PAIRS

    grid = next(file for file in made if file.name.startswith("ziplora_demo"))
    pixels = torch.from_numpy(np.asarray(Image.open(grid).convert("RGB")) / 255).float()
    tiles = pixels.movedim(-1, 0).unfold(1, SIDE, SIDE + 4).unfold(2, SIDE, SIDE + 4)
    subject, style = PAIRS[0].content_pictures(), PAIRS[0].style_pictures()
    rows = {"training pictures": {"": torch.cat([subject, style])}}
    rows |= {name: {"": tiles[:, n].movedim(1, 0)} for n, name in enumerate(ROWS)}
    picture, workflow = output / "demo.png", output / "demo.json"
    contact_sheet(f"ZipLoRA on a miniature SDXL: {PAIRS[0].name}", rows, scale=1.0).save(picture)
    shutil.copyfile(WORKFLOW, workflow)
    return [picture, workflow]


class _Progress:
    """Prints a line when a node starts, and one for every ten of its steps."""

    def __init__(self, prompt: dict[str, Any]) -> None:
        self._titles = {node_id: node["_meta"]["title"] for node_id, node in prompt.items()}

    def __call__(self, event: dict[str, Any]) -> None:
        data = event["data"]
        title = self._titles.get(data.get("node") or "")
        if event["type"] == "executing" and title is not None:
            print(f"  {title}", flush=True)
        elif event["type"] == "progress" and title is not None:
            step, steps = data["value"], data["max"]
            if step % EVERY == 0 or step == steps:
                print(f"  {title}: {step}/{steps}", flush=True)


def _report(result: Result, prompt: dict[str, Any], made: list[Path]) -> int:
    if result.error is not None:
        node = prompt[result.error["node_id"]]["_meta"]["title"]
        print(f"The demo failed in {node}: {result.error['exception_message']}", file=sys.stderr)
        return 1
    for node_id, output in result.outputs.items():
        for text in output.get("text", ()):
            print(f"\n{prompt[node_id]['_meta']['title']}\n{text}")
    print(f"\nDone in {result.seconds:.0f} s. RESULTS in {BASE / 'output'}:")
    for file in made:
        print(f"  {file}")
    return 0


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:2])))
