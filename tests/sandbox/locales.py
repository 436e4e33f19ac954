"""Write and check the frontend's translation files of our nodes: `make locales`.

The English file is written here from the nodes' own texts. Every other language has the same keys
and is written by hand, in `locales/<language>/nodeDefs.json`.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .paths import ROOT

Json = dict[str, Any]
LOCALES = ROOT / "locales"
PACK = "custom_nodes.ziplora"


def our_nodes(object_info: Json) -> Json:
    """Select the nodes of this pack from `/object_info`."""
    return {key: node for key, node in object_info.items() if node["python_module"] == PACK}


def english(nodes: Json) -> Json:
    """Arrange the nodes' texts in the structure that the frontend reads (`nodeDefs`)."""
    return {key: _node(node) for key, node in sorted(nodes.items())}


def texts(words: Json, path: str = "") -> Iterator[tuple[str, str]]:
    """List every text of a translation with its key, e.g. `ConceptSlider.inputs.scale.tooltip`."""
    for key, value in words.items():
        here = f"{path}.{key}" if path else key
        if isinstance(value, str):
            yield here, value
        else:
            yield from texts(value, here)


def written(language: str, file: str = "nodeDefs") -> Json:
    """Read a translation file of the pack."""
    return json.loads((LOCALES / language / f"{file}.json").read_text(encoding="utf-8"))


def write(language: str, words: Json) -> None:
    """Write `nodeDefs.json` of a language."""
    text = json.dumps(words, ensure_ascii=False, indent=2) + "\n"
    (LOCALES / language / "nodeDefs.json").write_text(text, encoding="utf-8")


def differences(language: str, expected: Json) -> list[str]:
    """List the keys that a language lacks, and those that no longer belong to a node."""
    wanted = dict(texts(expected))
    found = dict(texts(written(language)))
    return [
        *(f"{language}: missing {key}: {text}" for key, text in wanted.items() if key not in found),
        *(f"{language}: stale {key}" for key in found if key not in wanted),
    ]


def languages() -> list[str]:
    """List the languages of the pack."""
    return sorted(folder.name for folder in LOCALES.iterdir() if folder.is_dir())


def _node(node: Json) -> Json:
    inputs = {
        name: _named(_options(spec).get("display_name") or name, _options(spec).get("tooltip"))
        for group in ("required", "optional")
        for name, spec in node["input"].get(group, {}).items()
    }
    tooltips = node.get("output_tooltips") or [None] * len(node["output"])
    outputs = {
        str(index): _named(name if name != kind else None, tooltip)
        for index, (name, kind, tooltip) in enumerate(
            zip(node["output_name"], node["output"], tooltips, strict=True)
        )
    }
    words = {"display_name": node["display_name"], "description": node["description"]}
    words |= {"inputs": inputs, "outputs": {key: out for key, out in outputs.items() if out}}
    return {key: value for key, value in words.items() if value}


def _named(name: str | None, tooltip: str | None) -> Json:
    return {key: text.strip() for key, text in (("name", name), ("tooltip", tooltip)) if text}


def _options(spec: list[Any]) -> Json:
    return spec[1] if len(spec) > 1 else {}


def main() -> int:
    """Rewrite the English file and print the differences of all languages."""
    from .server import ComfyServer, fresh_base

    with tempfile.TemporaryDirectory() as folder, ComfyServer(fresh_base(Path(folder))) as server:
        words = english(our_nodes(server.object_info()))
    write("en", words)
    for language in languages():
        for line in differences(language, words):
            print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
