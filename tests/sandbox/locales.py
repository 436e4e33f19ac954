"""What the frontend's translation files have to say about our nodes: `make locales`.

English follows from the nodes' own words and is written here; every other language has the same
keys and is written by hand, in `locales/<language>/nodeDefs.json`.
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
    """Leave out of `/object_info` what other packs and ComfyUI itself have."""
    return {key: node for key, node in object_info.items() if node["python_module"] == PACK}


def english(nodes: Json) -> Json:
    """Put the nodes' words in the order in which the frontend looks them up (`nodeDefs`)."""
    return {key: _node(node) for key, node in sorted(nodes.items())}


def texts(words: Json, path: str = "") -> Iterator[tuple[str, str]]:
    """List every text of a translation with its key, as `ConceptSlider.inputs.scale.tooltip`."""
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
    """Name the keys that a language lacks, and those that no node has any more."""
    wanted = dict(texts(expected))
    found = dict(texts(written(language)))
    return [
        *(f"{language}: missing {key}: {text}" for key, text in wanted.items() if key not in found),
        *(f"{language}: stale {key}" for key in found if key not in wanted),
    ]


def languages() -> list[str]:
    """List what the pack is translated to."""
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
    """Write the English file anew; say what the others lack."""
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
