"""Run the shipped ZipLoRA workflow in the sandbox's ComfyUI, without a window: `make demo`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from .overrides import OVERRIDES
from .paths import BASE, ROOT
from .result import Result
from .server import ComfyServer, PromptRejected, ServerError
from .workflow import WorkflowError, to_prompt

WORKFLOW = ROOT / "workflows" / "ziplora_merge.json"
EVERY = 10


def main(path: Path = WORKFLOW) -> int:
    """Run a workflow file and say what came of it; 1 when it failed."""
    print(f"{path.name}: starting ComfyUI …", flush=True)
    try:
        workflow = json.loads(path.read_text(encoding="utf-8"))
        with ComfyServer(BASE) as server:
            before = set(_files(server.output))
            prompt = to_prompt(workflow, server.object_info(), OVERRIDES)
            result = server.run(prompt, timeout=1800, on_event=_Progress(prompt))
            made = [file for file in _files(server.output) if file not in before]
    except (ServerError, PromptRejected, WorkflowError, OSError) as error:
        print(f"The demo failed: {error}", file=sys.stderr)
        return 1
    return _report(result, prompt, made)


class _Progress:
    """Prints a line when a node starts, and one every ten of its steps."""

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
