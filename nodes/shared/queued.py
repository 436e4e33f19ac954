"""The prompt that was queued, and the part of it that a training depends on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from comfy_api.latest import io

from ...ziplora_core.training import registry

_SAVERS = ("SaveTrainedLoRA", "SaveMergedLoRA")
_LONGEST, _MOST = 1000, 200
"""Most letters of a setting, and most settings, in a record."""

Prompt = Mapping[str, Mapping[str, Any]]
"""ComfyUI's prompt: `class_type` and `inputs` of each node, by its id."""


class Trainer(io.ComfyNode):
    """A node whose training can go on after it was stopped, though its inputs are the same."""

    @classmethod
    def fingerprint_inputs(cls, **inputs: Any) -> int:
        return registry.continued(_key(str(cls.hidden.unique_id), inputs))


@dataclass(frozen=True)
class Queued:
    """A node in the prompt that was queued.

    Args:
        node_id: its id.
        prompt: the whole prompt; empty where it is not known.
        workflow: the workflow in the page; None where a program has queued a prompt alone.
        key: see `registry.continued`.
    """

    node_id: str
    prompt: Prompt
    workflow: Mapping[str, Any] | None
    key: str

    @classmethod
    def of(cls, node: type[io.ComfyNode]) -> Queued:
        """Read a running node's hidden inputs: `unique_id`, `prompt` and `extra_pnginfo`."""
        pnginfo, node_id = node.hidden.extra_pnginfo, str(node.hidden.unique_id)
        workflow = pnginfo.get("workflow") if isinstance(pnginfo, dict) else None
        prompt = node.hidden.prompt or {}
        known = {name for group in node.INPUT_TYPES().values() for name in group}
        own = prompt.get(node_id, {}).get("inputs", {})
        key = _key(node_id, {name: value for name, value in own.items() if name in known})
        return cls(node_id, prompt, workflow if isinstance(workflow, dict) else None, key)

    @property
    def workflow_id(self) -> str:
        """The workflow's id; empty without one."""
        return "" if self.workflow is None else str(self.workflow.get("id", ""))

    @property
    def kind(self) -> str:
        """The node's class; empty where the prompt is not known."""
        return str(self.prompt.get(self.node_id, {}).get("class_type", ""))

    def title(self, node_id: str = "") -> str:
        """Return the title of a node, this one by default; of one without, its class."""
        node = self.prompt.get(node_id or self.node_id, {})
        return str(node.get("_meta", {}).get("title") or node.get("class_type", ""))

    def as_sent(self) -> Prompt:
        """Return the prompt without what ComfyUI notes in it: that a node has not changed."""
        sent = ("class_type", "inputs", "_meta")
        return {
            node_id: {key: node[key] for key in sent if key in node}
            for node_id, node in self.prompt.items()
        }

    def settings(self) -> list[dict[str, Any]]:
        """List the values that the node and those before it were given: `node`, `input`, `value`.

        Those of the node itself come first, with an empty `node`.
        """
        rows = [
            {"node": "" if found == self.node_id else self.title(found), "input": name,
             "value": value if not isinstance(value, str) else value[:_LONGEST]}
            for found in self._ancestry()
            for name, value in self.prompt[found]["inputs"].items()
            if isinstance(value, str | int | float)
        ]  # fmt: skip
        return rows[:_MOST]

    def file_name(self) -> str:
        """Return the name that the LoRA will be saved by; empty if no node saves it.

        If a merge of it is saved, too, the nearest node counts. Where several are as near, as for
        a content and a style LoRA, the name is the words that theirs have in common.
        """
        found: list[tuple[int, str]] = []
        for saver, node in self.prompt.items():
            if node.get("class_type") in _SAVERS:
                before, prefix = self._ancestry(saver), node["inputs"].get("filename_prefix")
                if self.node_id in before and isinstance(prefix, str):
                    name = prefix.replace("\\", "/").split("/")[-1]
                    found.append((before.index(self.node_id), name))
        names = [name for far, name in found if far == min(found)[0]]
        words = zip(*(name.split("_") for name in names), strict=False)
        common = [first for first, *others in words if all(w == first for w in others)]
        return "_".join(common) or next(iter(names), "")

    def _ancestry(self, node_id: str | None = None) -> list[str]:
        """List a node, this one by default, and all before it; the nearest come first."""
        found = [node_id or self.node_id]
        for each in found:
            found += [link for link in dict.fromkeys(self._links(each)) if link not in found]
        return [each for each in found if each in self.prompt]

    def _links(self, node_id: str) -> Iterator[str]:
        for value in self.prompt.get(node_id, {}).get("inputs", {}).values():
            if isinstance(value, list) and len(value) == 2:
                yield str(value[0])


def _key(node_id: str, inputs: Mapping[str, Any]) -> str:
    """Hash a node's id and its values, which come in lists of one to some nodes.

    ComfyUI asks for a node's fingerprint before the nodes before it have run, so links are no part
    of it: of two trainings that differ in links alone, both go on.
    """
    plain = {
        name: value[0] if isinstance(value, list) and len(value) == 1 else value
        for name, value in inputs.items()
    }
    values = {name: v for name, v in plain.items() if isinstance(v, str | int | float)}
    text = json.dumps([node_id, values], sort_keys=True)
    return hashlib.blake2b(text.encode(errors="replace")).hexdigest()[:16]
